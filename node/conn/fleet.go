package conn

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
)

// Methods of surveys that nodes answer to each other.
const (
	surveyConnections = "connections"
	surveyDisconnect  = "disconnect"
	surveyDrain       = "drain"
)

// connectionsMost is how many connections one node lists; it counts them all.
const connectionsMost = 1000

// query selects connections: all that match every given field.
type query struct {
	User    string `json:"user,omitempty"`
	Channel string `json:"channel,omitempty"`
	Client  string `json:"client,omitempty"`
	Node    string `json:"node,omitempty"`
}

// connection is one entry of the registry of connections.
type connection struct {
	Client   string   `json:"client"`
	User     string   `json:"user"`
	Node     string   `json:"node"`
	Since    int64    `json:"since"` // Unix milliseconds
	Channels []string `json:"channels"`
	// Unacked counts, by channel, what was sent and not confirmed; only namespaces with ack.
	Unacked map[string]uint64 `json:"unacked,omitempty"`
}

// listing is what a node, or the fleet, answers to a query.
type listing struct {
	Total       int          `json:"total"`
	Connections []connection `json:"connections"`
	// Missing names the nodes that are alive and did not answer.
	Missing []string `json:"missing,omitempty"`
}

// answer serves surveys of other nodes, and of this one.
func (s *Service) answer(_ context.Context, method string, params []byte) ([]byte, error) {
	var q query
	if err := json.Unmarshal(params, &q); err != nil {
		return nil, fmt.Errorf("survey %s: %w", method, err)
	}
	switch method {
	case surveyConnections:
		return json.Marshal(s.list(q))
	case surveyDisconnect:
		n := 0
		for _, c := range s.matching(q) {
			c.close(byeForceNoReconnect)
			n++
		}
		return json.Marshal(listing{Total: n})
	case surveyDrain:
		if q.Node != s.o.NodeID {
			return json.Marshal(listing{})
		}
		if s.o.DrainOrdered == nil {
			return nil, fmt.Errorf("node %s can't be drained", s.o.NodeID)
		}
		s.log.Warn("drain ordered by an operator")
		s.o.DrainOrdered()
		return json.Marshal(listing{Total: 1})
	}
	return nil, fmt.Errorf("no such survey: %s", method)
}

func (s *Service) matching(q query) []*client {
	s.mu.Lock()
	all := s.listLocked()
	s.mu.Unlock()
	matching := all[:0]
	for _, c := range all {
		if c.matches(q) {
			matching = append(matching, c)
		}
	}
	return matching
}

func (c *client) matches(q query) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == connected && (q.Client == "" || q.Client == c.id) && (q.User == "" || q.User == c.identity.User) &&
		(q.Channel == "" || c.subs[q.Channel] != nil) && (q.Node == "" || q.Node == c.s.o.NodeID)
}

func (s *Service) list(q query) listing {
	found := s.matching(q)
	l := listing{Total: len(found), Connections: []connection{}}
	for _, c := range found[:min(len(found), connectionsMost)] {
		l.Connections = append(l.Connections, c.entry())
	}
	return l
}

func (c *client) entry() connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := connection{Client: c.id, User: c.identity.User, Node: c.s.o.NodeID, Since: c.since.UnixMilli(), Channels: []string{}}
	for name, sub := range c.subs {
		e.Channels = append(e.Channels, name)
		if n := sub.unackedLocked(); n > 0 {
			if e.Unacked == nil {
				e.Unacked = map[string]uint64{}
			}
			e.Unacked[name] = n
		}
	}
	return e
}

// survey asks the whole fleet and adds the answers up.
func (s *Service) survey(ctx context.Context, method string, q query) (listing, error) {
	params, err := json.Marshal(q)
	if err != nil {
		return listing{}, err
	}
	answers, missing, err := s.o.Bus.Survey(ctx, method, params)
	if err != nil {
		return listing{}, err
	}
	all := listing{Connections: []connection{}}
	for _, a := range answers {
		var l listing
		if a.Error != "" || json.Unmarshal(a.Data, &l) != nil {
			all.Missing = append(all.Missing, a.Node)
			continue
		}
		all.Total += l.Total
		all.Connections = append(all.Connections, l.Connections...)
	}
	for _, n := range missing {
		all.Missing = append(all.Missing, n.ID)
	}
	return all, nil
}

// revoked ends the connections whose token has been revoked.
func (s *Service) revoked(r bus.Revocation) {
	s.mu.Lock()
	all := s.listLocked()
	s.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		hit := c.state == connected && !c.claims.IssuedAt.After(r.Before) && (r.User != "" && r.User == c.claims.User ||
			r.Session != "" && r.Session == c.claims.Session || r.Token != "" && r.Token == c.claims.ID)
		c.mu.Unlock()
		if hit {
			c.close(byeForceNoReconnect)
		}
	}
}

// operator guards the calls that see or change what is other people's.
func operator(m rpcMethod) rpcMethod {
	return func(ctx context.Context, c *client, data []byte) (any, error) {
		id := c.who()
		if err := (channel.Namespace{Subscribe: channel.Operator}).MaySubscribe(id, ""); err != nil {
			return nil, errPermission
		}
		return m(ctx, c, data)
	}
}

// rpcNodes lists the fleet.
func rpcNodes(ctx context.Context, c *client, _ []byte) (any, error) {
	nodes, err := c.s.o.Bus.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	return struct {
		Nodes []bus.NodeInfo `json:"nodes"`
	}{nodes}, nil
}

// rpcSurvey answers a call with a survey by a query.
func rpcSurvey(method string, valid func(query) bool) rpcMethod {
	return func(ctx context.Context, c *client, data []byte) (any, error) {
		var q query
		if len(data) > 0 && json.Unmarshal(data, &q) != nil || !valid(q) {
			return nil, errBadRequest
		}
		// A little less than the command has: a node that doesn't answer is named, rather than the command failed.
		if end, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, end.Add(-200*time.Millisecond))
			defer cancel()
		}
		return c.s.survey(ctx, method, q)
	}
}
