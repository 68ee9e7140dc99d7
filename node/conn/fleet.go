package conn

import (
	"context"
	"tideline/shared/bus"
	"tideline/shared/channel"
)

// connectionsMost is how many connections one node lists; it counts them all.
const connectionsMost = 1000

// query selects connections: all that match every given field.
type query struct {
	User    string `json:"user,omitempty"`
	Channel string `json:"channel,omitempty"`
	Client  string `json:"client,omitempty"`
	Session string `json:"session,omitempty"`
	Node    string `json:"node,omitempty"`
}

// connection is one entry of the registry of connections.
type connection struct {
	Client   string   `json:"client"`
	User     string   `json:"user"`
	Session  string   `json:"session,omitempty"`
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
	return c.state == connected && !c.canary() && (q.Client == "" || q.Client == c.id) && (q.User == "" || q.User == c.identity.User) &&
		(q.Session == "" || q.Session == c.claims.Session) &&
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
	e := connection{Client: c.id, User: c.identity.User, Session: c.claims.Session, Node: c.s.o.NodeID, Since: c.since.UnixMilli(), Channels: []string{}}
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
