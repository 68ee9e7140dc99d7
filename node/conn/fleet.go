package conn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"tideline/node/hub"
	"tideline/shared/bus"
	"tideline/shared/channel"
)

const (
	// connectionsMost is how many connections one node lists; it counts them all.
	connectionsMost = 1000
	// ChannelsMost is how many channels one node lists; it refuses to list more.
	ChannelsMost = 10_000
	// listBytes bounds the names in one node's list. Twice of it is less than bus.AnswerBytes, which leaves room for the rest.
	listBytes = 400 << 10
)

// Query selects connections: all that match every given field.
type Query struct {
	User    string `json:"user,omitempty"`
	Channel string `json:"channel,omitempty"`
	Client  string `json:"client,omitempty"`
	Session string `json:"session,omitempty"`
	Node    string `json:"node,omitempty"`
}

// Connection is one entry of the registry of connections.
type Connection struct {
	Client    string   `json:"client"`
	User      string   `json:"user"`
	Session   string   `json:"session,omitempty"`
	Node      string   `json:"node"`
	Since     int64    `json:"since"`     // Unix milliseconds
	Transport string   `json:"transport"` // websocket, http_stream, sse, uni_websocket, uni_sse
	Protocol  string   `json:"protocol"`  // json, protobuf
	Channels  []string `json:"channels"`
	// Unacked counts, by channel, what was sent and not confirmed; only namespaces with ack.
	Unacked map[string]uint64 `json:"unacked,omitempty"`
}

// Listing is what a node, or the fleet, answers to a query or an order.
type Listing struct {
	// Total counts the connections, or channels, that match, or for which an order was carried out.
	Total       int          `json:"total"`
	Connections []Connection `json:"connections"`
	// Channels counts subscriptions by channel.
	Channels map[string]int `json:"channels,omitempty"`
	// Refused counts, by the protocol's error code, where an order was not carried out.
	Refused map[uint32]int `json:"refused,omitempty"`
	// Missing names the nodes that are alive and did not answer.
	Missing []string `json:"missing,omitempty"`
}

func (l *Listing) refuse(code uint32, n int) {
	if l.Refused == nil {
		l.Refused = map[uint32]int{}
	}
	l.Refused[code] += n
}

// add takes another node's answer in.
func (l *Listing) add(other Listing) {
	l.Total += other.Total
	l.Connections = append(l.Connections, other.Connections...)
	for name, n := range other.Channels {
		if l.Channels == nil {
			l.Channels = map[string]int{}
		}
		l.Channels[name] += n
	}
	for code, n := range other.Refused {
		l.refuse(code, n)
	}
}

func (s *Service) matching(q Query) []*client {
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

func (c *client) matches(q Query) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Whoever was told to go is gone, although the reader may wait for the answer to its goodbye for a while.
	return c.state == connected && c.goodbye == nil && !c.canary() && (q.Client == "" || q.Client == c.id) && (q.User == "" || q.User == c.identity.User) &&
		(q.Session == "" || q.Session == c.claims.Session) &&
		(q.Channel == "" || c.subs[q.Channel] != nil) && (q.Node == "" || q.Node == c.s.o.NodeID)
}

func (s *Service) list(q Query) Listing {
	found := s.matching(q)
	l := Listing{Total: len(found), Connections: []Connection{}}
	room := listBytes
	for _, c := range found[:min(len(found), connectionsMost)] {
		e := c.entry()
		room -= len(e.User) + len(e.Session)
		for _, name := range e.Channels {
			room -= len(name) + 4
		}
		if room < 0 {
			break
		}
		l.Connections = append(l.Connections, e)
	}
	return l
}

// listChannels lists the channels that somebody here is subscribed to and that match, or refuses (106) if they are too many.
func (s *Service) listChannels(pattern string) Listing {
	match, err := glob(pattern)
	if err != nil {
		return Listing{Refused: map[uint32]int{errBadRequest.code: 1}}
	}
	l := Listing{Channels: map[string]int{}}
	room := listBytes
	for name, n := range s.hub.Channels() {
		if _, err := s.o.Table.Lookup(name); err != nil || !match.MatchString(name) {
			continue // what has no namespace is the node's own
		}
		if name == channel.Canary {
			if n -= s.canaryCount(); n <= 0 {
				continue // so is its client
			}
		}
		l.Total++
		l.Channels[name] = n
		if room -= len(name) + 8; room < 0 || l.Total > ChannelsMost {
			return Listing{Refused: map[uint32]int{errLimitExceeded.code: 1}}
		}
	}
	return l
}

func (c *client) entry() Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := Connection{Client: c.id, User: c.identity.User, Session: c.claims.Session, Node: c.s.o.NodeID, Since: c.since.UnixMilli(),
		Transport: transportOf(c.format), Protocol: "json", Channels: []string{}}
	if formats[c.format].binary {
		e.Protocol = "protobuf"
	}
	for name, sub := range c.subs {
		e.Channels = append(e.Channels, name)
		if n := sub.unackedLocked(); n > 0 {
			if e.Unacked == nil {
				e.Unacked = map[string]uint64{}
			}
			e.Unacked[name] = n
		}
	}
	slices.Sort(e.Channels)
	return e
}

func transportOf(f hub.Format) string {
	switch f {
	case formatUniJSON:
		return "uni_websocket"
	case formatStreamJSON, formatStreamProtobuf:
		return "http_stream"
	case formatSSE:
		return "sse"
	case formatUniSSE, formatUniSSEOne:
		return "uni_sse"
	}
	return "websocket"
}

// encodeOrder is json.Marshal without escapes for HTML, which would make six bytes of one in Data.
func encodeOrder(o Order) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(o)
	return b.Bytes(), err
}

// operatorMethod answers a call that sees or changes what is other people's.
type operatorMethod func(ctx context.Context, s *Service, data []byte) (any, error)

// operatorMethods are for the role operator, and for whoever holds a key of the server API.
func (s *Service) operatorMethods() map[string]operatorMethod {
	all := map[string]operatorMethod{"nodes": rpcNodes, "revoke": rpcRevoke}
	for _, method := range []string{surveyConnections, surveyChannels, surveySubscribe, surveyUnsubscribe, surveyDisconnect, surveyRefresh, surveySend, surveyDrain} {
		all[method] = rpcSurvey(method)
	}
	for name, m := range s.o.Methods {
		all[name] = func(ctx context.Context, _ *Service, data []byte) (any, error) {
			answer, err := m(ctx, data)
			if errors.Is(err, ErrBadRequest) {
				return nil, errBadRequest
			}
			return answer, err
		}
	}
	return all
}

// operator guards the calls of operators.
func operator(m operatorMethod) rpcMethod {
	return func(ctx context.Context, c *client, data []byte) (any, error) {
		if err := (channel.Namespace{Subscribe: channel.Operator}).MaySubscribe(c.who(), ""); err != nil {
			return nil, errPermission
		}
		return m(ctx, c.s, data)
	}
}

// rpcSurvey answers a call with a survey by an order.
func rpcSurvey(method string) operatorMethod {
	return func(ctx context.Context, s *Service, data []byte) (any, error) {
		var o Order
		if len(data) > 0 && json.Unmarshal(data, &o) != nil {
			return nil, errBadRequest
		}
		return s.survey(ctx, method, o)
	}
}

// rpcNodes lists the fleet.
func rpcNodes(ctx context.Context, s *Service, _ []byte) (any, error) {
	nodes, err := s.o.Bus.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	return struct {
		Nodes []bus.NodeInfo `json:"nodes"`
	}{nodes}, nil
}

// rpcRevoke refuses tokens from now on, and disconnects who holds them, on every node: those of a user, of a session, or one alone.
func rpcRevoke(ctx context.Context, s *Service, data []byte) (any, error) {
	var req struct {
		User    string `json:"user"`
		Session string `json:"session"`
		Token   string `json:"token"`
	}
	if json.Unmarshal(data, &req) != nil {
		return nil, errBadRequest
	}
	err := s.o.Bus.Revoke(ctx, bus.Revocation{User: req.User, Session: req.Session, Token: req.Token})
	if errors.Is(err, bus.ErrInvalid) || errors.Is(err, bus.ErrTooLarge) {
		return nil, errBadRequest
	}
	return struct{}{}, err
}
