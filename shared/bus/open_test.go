package bus

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tideline/shared/limit"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no URL":                   {Stage: "s"},
		"another scheme":           {Stage: "s", URL: "http://h:1"},
		"no host":                  {Stage: "s", URL: "redis://"},
		"no host among several":    {Stage: "s", URL: "redis://a:1,,b:2"},
		"a port that is no number": {Stage: "s", URL: "redis://a:b"},
		"a database that is none":  {Stage: "s", URL: "redis://a/x"},
		"a negative database":      {Stage: "s", URL: "redis://a/-1"},
		"a database in a cluster":  {Stage: "s", URL: "redis+cluster://a/1"},
		"a query":                  {Stage: "s", URL: "redis://a?db=1"},
		"no stage":                 {URL: "redis://a"},
		"a stage with a brace":     {URL: "redis://a", Stage: "a{b}"},
		"a stage with a colon":     {URL: "redis://a", Stage: "a:b"},
		"a stage past 32 bytes":    {URL: "redis://a", Stage: strings.Repeat("x", 33)},
		"a negative pool":          {URL: "redis://a", Stage: "s", PoolSize: -1},
		"rotation upside down":     {URL: "redis://a", Stage: "s", RotateMin: 2, RotateMax: 1},
	} {
		b, err := Open(t.Context(), o)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
		if b != nil {
			_ = b.Close()
		}
	}
	_, err := Open(t.Context(), Options{URL: "redis://u:top%zzsecret@h", Stage: "BAD", PoolSize: -1})
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "Stage") || !strings.Contains(err.Error(), "PoolSize") {
		t.Errorf("every mistake, and no password: %v", err)
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]struct {
		hosts      []string
		user, pass string
		db         int
		tls, clust bool
	}{
		"redis://h":                           {hosts: []string{"h:6379"}},
		"redis://u:p%40ss@h:1/3":              {hosts: []string{"h:1"}, user: "u", pass: "p@ss", db: 3},
		"rediss://:p@h":                       {hosts: []string{"h:6379"}, pass: "p", tls: true},
		"redis://a:1,b":                       {hosts: []string{"a:1", "b:6379"}},
		"redis://[::1]:7,[::2]":               {hosts: []string{"[::1]:7", "[::2]:6379"}},
		"redis+cluster://a:1,b:2":             {hosts: []string{"a:1", "b:2"}, clust: true},
		"rediss+cluster://u:p@x.amazonaws:1/": {hosts: []string{"x.amazonaws:1"}, user: "u", pass: "p", tls: true, clust: true},
	} {
		e, cluster, err := parseURL(raw)
		if err != nil || !slices.Equal(e.hosts, want.hosts) || e.user != want.user || e.pass != want.pass || e.db != want.db ||
			(e.tls != nil) != want.tls || cluster != want.clust {
			t.Errorf("%s: %+v, cluster %v, %v", raw, e, cluster, err)
		}
	}
}

// The numbers of a connection against those that others set.
func TestInequalities(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"keepalive stays below the 350 s after which idle connections are forgotten": keepAlive < 350*time.Second,
		"an attempt leaves time for another within a publication":                    2*commandTimeout < limit.PublishTimeout,
		"an attempt fits in a client's command":                                      commandTimeout < limit.CommandBudget,
		"command connections end before IAM's 12 h":                                  limit.RotateMax+limit.RotateMax/10 >= limit.RotateMax,
		"a recovery reply fits in one read":                                          limit.RecoveryBytes < historyBytes,
		"a publication with its header fits in one read":                             limit.DataBytes+headerBytes < historyBytes,
		"tags and id fit in the header":                                              6*(limit.TagsBytes+limit.PublicationIDBytes) < headerBytes,
		"a probe's key outlives the probe":                                           limit.ProbeEvery < probeTTL,
		"a replaced connection was tried for longer than a confirmation may take":    limit.SubscribeConfirm < rotateTimeout,
	} {
		if !ok {
			t.Error(name)
		}
	}
}
