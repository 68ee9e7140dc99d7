package edge

import (
	"cmp"
	"fmt"
	"strings"
)

// CacheMembers are the names under which CloudWatch knows the cache's primaries and replicas: the value of the dimension CacheClusterId. Nil for a serverless
// cache and for a Redis that exists.
func (e *Edge) CacheMembers() []*string {
	c := e.props.Cache
	if c.URL != "" || e.cache.kind == CacheServerless {
		return nil
	}
	copies := 1
	if e.props.Protect {
		copies = 2
	}
	var names []*string
	for shard := range max(c.Shards, 1) {
		for member := range copies {
			suffix := fmt.Sprintf("-%03d", member+1)
			if e.cache.kind == CacheCluster {
				suffix = fmt.Sprintf("-%04d%s", shard+1, suffix)
			} else if shard > 0 {
				continue
			}
			names = append(names, str(*e.cache.name+suffix))
		}
	}
	return names
}

// ServerlessCache is the name of a serverless cache; nil for every other kind.
func (e *Edge) ServerlessCache() *string {
	if e.cache.kind != CacheServerless {
		return nil
	}
	return e.cache.name
}

// Stage is Props.Stage.
func (e *Edge) Stage() string { return e.props.Stage }

// ConnectionsPerNode is what scaling aims at.
func (e *Edge) ConnectionsPerNode() int { return e.props.Nodes.withDefaults().ConnectionsPerNode }

// Runbook is the end of an alarm's description: where its heading is in docs/operations.md, or in the copy that Props.Runbook names.
func (e *Edge) Runbook(heading string) string {
	return "Runbook: " + e.RunbookPage() + "#" + strings.ToLower(heading)
}

// RunbookPage is where docs/operations.md is read.
func (e *Edge) RunbookPage() string { return cmp.Or(e.props.Runbook, "docs/operations.md") }
