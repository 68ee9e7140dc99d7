package conn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
	"golang.org/x/sync/errgroup"

	"tideline/node/feed"
	"tideline/shared/bus"
)

// Methods of surveys (bus.Survey) that nodes answer to each other, and to whoever holds the bus. Parameters and answers are JSON:
// an order and a listing.
const (
	surveyConnections = "connections"
	surveySubscribe   = "subscribe"
	surveyUnsubscribe = "unsubscribe"
	surveyDisconnect  = "disconnect"
	surveyDrain       = "drain"
)

// order is what a survey asks for: which connections, and what is to be done with them. For subscribe and unsubscribe the channel
// is what it is about; elsewhere it selects.
type order struct {
	query
	// Reconnect: disconnected clients are told to come back (3011).
	Reconnect bool `json:"reconnect,omitempty"`
}

// names reports whether the order says whose connections it is for, rather than everybody's.
func (o order) names() bool { return o.Client != "" || o.User != "" || o.Session != "" }

// ordersAtOnce is how many clients of a node carry one order out together.
const ordersAtOnce = 64

// answer serves surveys of other nodes, and of this one.
func (s *Service) answer(ctx context.Context, method string, params []byte) ([]byte, error) {
	var o order
	if err := json.Unmarshal(params, &o); err != nil {
		return nil, fmt.Errorf("survey %s: %w", method, err)
	}
	switch method {
	case surveyConnections:
		return json.Marshal(s.list(o.query))
	case surveySubscribe:
		if err := s.mayExist(o.Channel); err != nil || !o.names() {
			return nil, fmt.Errorf("survey %s: bad request", method)
		}
		q := o.query
		q.Channel = ""
		return s.each(ctx, q, func(ctx context.Context, c *client) bool { return c.serverSubscribe(ctx, o.Channel) })
	case surveyUnsubscribe:
		if o.Channel == "" {
			return nil, fmt.Errorf("survey %s: no channel", method)
		}
		return s.each(ctx, o.query, func(_ context.Context, c *client) bool {
			return c.dropWhere(unsubServer, "server unsubscribe", func(name string, _ *subscription) bool { return name == o.Channel }) > 0
		})
	case surveyDisconnect:
		if !o.names() {
			return nil, fmt.Errorf("survey %s: of whom?", method)
		}
		return s.disconnect(o)
	case surveyDrain:
		return s.orderDrain(o)
	}
	return nil, fmt.Errorf("no such survey: %s", method)
}

func (s *Service) disconnect(o order) ([]byte, error) {
	bye := byeForceNoReconnect
	if o.Reconnect {
		bye = byeForceReconnect
	}
	found := s.matching(o.query)
	for _, c := range found {
		c.close(bye)
	}
	return json.Marshal(listing{Total: len(found)})
}

func (s *Service) orderDrain(o order) ([]byte, error) {
	if o.Node != s.o.NodeID {
		return json.Marshal(listing{})
	}
	if s.o.DrainOrdered == nil {
		return nil, fmt.Errorf("node %s can't be drained", s.o.NodeID)
	}
	s.log.Warn("drain ordered by an operator")
	s.o.DrainOrdered()
	return json.Marshal(listing{Total: 1})
}

// each has the matching clients do something in their turn, and counts those where it was done before ctx ended.
func (s *Service) each(ctx context.Context, q query, do func(context.Context, *client) bool) ([]byte, error) {
	var done atomic.Int64
	var g errgroup.Group
	g.SetLimit(ordersAtOnce)
	for _, c := range s.matching(q) {
		g.Go(func() error {
			if c.ask(ctx, func(ctx context.Context) bool { return do(ctx, c) }) {
				done.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return json.Marshal(listing{Total: int(done.Load())})
}

// serverSubscribe subscribes the client to a channel by the server's decision: its permissions are not asked. The client is told by a push. It
// holds for this connection alone; a token's channels come again with every connection.
func (c *client) serverSubscribe(ctx context.Context, name string) bool {
	ns, err := c.s.o.Table.Lookup(name)
	if err != nil {
		return false
	}
	sub := &subscription{ns: ns, serverSide: true}
	if err := c.reserve(name, sub); err != nil {
		return errors.Is(err, errAlreadySub) // it is where it should be
	}
	req := &protocol.SubscribeRequest{Channel: name, JoinLeave: true, Positioned: true}
	err = c.enter(ctx, req, sub, func(j feed.Joined, _ int) (func() []byte, error) {
		return func() []byte {
			r := c.subscribeResult(req, sub, j)
			return pushFrame(c.format, &protocol.Push{Channel: name, Subscribe: &protocol.Subscribe{
				Recoverable: r.Recoverable, Positioned: r.Positioned, Epoch: r.Epoch, Offset: r.Offset}})
		}, nil
	})
	if err != nil {
		c.s.log.Warn("ordered subscription failed", "client", c.id, "channel", name, "error", err)
	}
	return err == nil
}

// revoked ends what rests on a revoked token: connections, and subscriptions that a token of their own was needed for.
func (s *Service) revoked(r bus.Revocation) {
	s.mu.Lock()
	all := s.listLocked()
	s.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		hit := c.state == connected && revokes(r, c.claims.User, c.claims.Session, c.claims.ID, c.claims.IssuedAt)
		look := c.working // a subscribe may be under way with such a token
		for _, sub := range c.subs {
			look = look || sub.token.Channel != ""
		}
		c.mu.Unlock()
		switch {
		case hit:
			c.close(byeForceNoReconnect)
		case look:
			c.order(func(context.Context) {
				c.dropWhere(unsubServer, "token revoked", func(_ string, sub *subscription) bool {
					t := sub.token
					return t.Channel != "" && revokes(r, t.User, t.Session, t.ID, t.IssuedAt)
				})
			})
		}
	}
}

func revokes(r bus.Revocation, user, session, id string, issued time.Time) bool {
	return !issued.After(r.Before) && (r.User != "" && r.User == user || r.Session != "" && r.Session == session || r.Token != "" && r.Token == id)
}

// survey asks the whole fleet and adds the answers up.
func (s *Service) survey(ctx context.Context, method string, o order) (listing, error) {
	params, err := json.Marshal(o)
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

// rpcSurvey answers a call with a survey by an order.
func rpcSurvey(method string, valid func(*Service, order) error) rpcMethod {
	return func(ctx context.Context, c *client, data []byte) (any, error) {
		var o order
		if len(data) > 0 && json.Unmarshal(data, &o) != nil {
			return nil, errBadRequest
		}
		if err := valid(c.s, o); err != nil {
			return nil, err
		}
		// A little less than the command has: a node that doesn't answer is named, rather than the command failed.
		if end, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, end.Add(-200*time.Millisecond))
			defer cancel()
		}
		return c.s.survey(ctx, method, o)
	}
}

// mayExist answers why there can't be such a channel, as commands do.
func (s *Service) mayExist(name string) error {
	if _, err := s.o.Table.Lookup(name); err != nil {
		return channelError(err)
	}
	return bad(s.o.Streams.Check(name) != nil)
}

func bad(wrong bool) error {
	if wrong {
		return errBadRequest
	}
	return nil
}

// rpcRevoke refuses tokens from now on, and disconnects who holds them, on every node: those of a user, of a session, or one alone.
func rpcRevoke(ctx context.Context, c *client, data []byte) (any, error) {
	var req struct {
		User    string `json:"user"`
		Session string `json:"session"`
		Token   string `json:"token"`
	}
	if json.Unmarshal(data, &req) != nil {
		return nil, errBadRequest
	}
	err := c.s.o.Bus.Revoke(ctx, bus.Revocation{User: req.User, Session: req.Session, Token: req.Token})
	if errors.Is(err, bus.ErrInvalid) || errors.Is(err, bus.ErrTooLarge) {
		return nil, errBadRequest
	}
	return struct{}{}, err
}
