package conn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// Methods of surveys (bus.Survey) that nodes answer to each other, and to whoever holds the bus. Parameters and answers are JSON:
// an Order and a Listing.
const (
	surveyConnections = "connections"
	surveyChannels    = "channels"
	surveySubscribe   = "subscribe"
	surveyUnsubscribe = "unsubscribe"
	surveyDisconnect  = "disconnect"
	surveyRefresh     = "refresh"
	surveySend        = "send"
	surveyDrain       = "drain"
)

// Order says which connections are meant, and what is to be done with them. For subscribe and unsubscribe the channel is what it is
// about; elsewhere it selects.
type Order struct {
	Query
	// Except are clients that stay; disconnect.
	Except []string `json:"except,omitempty"`
	// Code and Reason of disconnect (3000 to 4999) and unsubscribe (2000 to 2999); 0 is the order's own: 3503, or 3011 with Reconnect, and 2000.
	Code      uint32 `json:"code,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Reconnect bool   `json:"reconnect,omitempty"`
	// Data is the message of send, and what comes with the push of subscribe; Info is shown in the channel's presence and joins. JSON.
	Data json.RawMessage `json:"data,omitempty"`
	Info json.RawMessage `json:"info,omitempty"`
	// Since is the position that subscribe recovers from; a client for which that is impossible is not subscribed.
	Since *bus.Position `json:"since,omitempty"`
	// Until is when a subscription, or a refreshed connection, expires, in Unix seconds; 0 is never.
	Until int64 `json:"until,omitempty"`
	// Expired: refresh ends the connection as expired.
	Expired bool `json:"expired,omitempty"`
	// Pattern selects channels; see Channels.
	Pattern string `json:"pattern,omitempty"`
}

// names reports whether the order says whose connections it is for, rather than everybody's.
func (o Order) names() bool { return o.Client != "" || o.User != "" || o.Session != "" }

// end is Until as a time.
func (o Order) end() time.Time {
	if o.Until == 0 {
		return time.Time{}
	}
	return time.Unix(o.Until, 0)
}

// goodbye is what a disconnect order says.
func (o Order) goodbye() disconnect {
	switch {
	case o.Code != 0:
		return disconnect{uint16(o.Code), o.Reason}
	case o.Reconnect:
		return byeForceReconnect
	}
	return byeForceNoReconnect
}

// unsubscription is what an unsubscribe order says.
func (o Order) unsubscription() (code uint32, reason string) {
	if o.Code != 0 {
		return o.Code, o.Reason
	}
	return unsubServer, "server unsubscribe"
}

// Bounds of the codes and reasons that orders may name.
const (
	disconnectFirst, disconnectLast   = 3000, 4999
	unsubscribeFirst, unsubscribeLast = 2000, 2999
	reasonBytes                       = 123 // what a close frame has room for
)

// UntilMost is how far ahead the end of a subscription or a connection may be: clients are told in 32 bits of seconds.
const UntilMost = 10 * 365 * 24 * time.Hour

// ordersAtOnce is how many clients of a node carry one order out together.
const ordersAtOnce = 64

// check answers why an order makes no sense, as commands do.
func (s *Service) check(method string, o Order) error {
	switch method {
	case surveySubscribe:
		ns, err := s.Namespace(o.Channel)
		switch {
		case err != nil:
			return err
		case o.Since != nil && ns.HistorySize == 0, o.Info != nil && !ns.Presence:
			return errNotAvailable
		}
		return bad(!o.names() || !o.ends())
	case surveyUnsubscribe:
		return bad(o.Channel == "" || !o.Unsubscribes())
	case surveyDisconnect:
		return bad(!o.names() || !o.Disconnects())
	case surveyRefresh:
		return bad(!o.names() || !o.ends())
	case surveySend:
		return bad(!o.names() || len(o.Data) == 0)
	case surveyDrain:
		return bad(o.Node == "")
	case surveyChannels:
		_, err := glob(o.Pattern)
		return bad(err != nil)
	case surveyConnections:
		return nil
	}
	return errMethodNotFound
}

// Disconnects reports whether code and reason are what a client can be told when it is disconnected.
func (o Order) Disconnects() bool { return o.says(disconnectFirst, disconnectLast) }

// Unsubscribes reports whether code and reason are what a client can be told when its subscription is ended.
func (o Order) Unsubscribes() bool { return o.says(unsubscribeFirst, unsubscribeLast) }

// ends reports whether Until is ahead, or not set.
func (o Order) ends() bool {
	ahead := time.Until(o.end())
	return o.Until == 0 || o.Until > 0 && ahead > 0 && ahead <= UntilMost
}

// says reports whether code and reason are what a client can be told: SDKs take an empty reason for a lost connection, and one that is JSON
// for something else.
func (o Order) says(first, last uint32) bool {
	if o.Code == 0 {
		return o.Reason == ""
	}
	return first <= o.Code && o.Code <= last && o.Reason != "" && len(o.Reason) <= reasonBytes && utf8.ValidString(o.Reason) && !json.Valid([]byte(o.Reason))
}

// answer serves surveys of other nodes, and of this one.
func (s *Service) answer(ctx context.Context, method string, params []byte) ([]byte, error) {
	var o Order
	if err := json.Unmarshal(params, &o); err != nil {
		return nil, fmt.Errorf("survey %s: %w", method, err)
	}
	if err := s.check(method, o); err != nil {
		return nil, fmt.Errorf("survey %s: %w", method, err)
	}
	l, err := s.carryOut(ctx, method, o)
	if err != nil {
		return nil, err
	}
	return json.Marshal(l)
}

func (s *Service) carryOut(ctx context.Context, method string, o Order) (Listing, error) {
	switch method {
	case surveyConnections:
		return s.list(o.Query), nil
	case surveyChannels:
		return s.listChannels(o.Pattern), nil
	case surveySubscribe:
		q := o.Query
		q.Channel = ""
		return s.each(ctx, q, func(ctx context.Context, c *client) error { return c.serverSubscribe(ctx, o) }), nil
	case surveyUnsubscribe:
		code, reason := o.unsubscription()
		return s.each(ctx, o.Query, func(_ context.Context, c *client) error {
			if c.dropWhere(code, reason, func(name string, _ *subscription) bool { return name == o.Channel }) == 0 {
				return errNothing
			}
			return nil
		}), nil
	case surveyDisconnect:
		return s.all(o, func(c *client) { c.close(o.goodbye()) }), nil
	case surveyRefresh:
		return s.all(o, func(c *client) { c.serverRefresh(o) }), nil
	case surveySend:
		return s.all(o, func(c *client) { c.message(o.Data) }), nil
	}
	return s.orderDrain(o)
}

func (s *Service) orderDrain(o Order) (Listing, error) {
	if o.Node != s.o.NodeID {
		return Listing{}, nil
	}
	if s.o.DrainOrdered == nil {
		return Listing{}, fmt.Errorf("node %s can't be drained", s.o.NodeID)
	}
	s.log.Warn("drain ordered by an operator")
	s.o.DrainOrdered()
	return Listing{Total: 1}, nil
}

// errNothing says that there was nothing to do at a client.
var errNothing = errors.New("nothing to do")

// each has the matching clients do something in their turn, and counts where it was done, and where it was refused or not done before ctx
// ended. A client that goes meanwhile is not counted.
func (s *Service) each(ctx context.Context, q Query, do func(context.Context, *client) error) Listing {
	var mu sync.Mutex
	var l Listing
	var g errgroup.Group
	g.SetLimit(ordersAtOnce)
	for _, c := range s.matching(q) {
		g.Go(func() error {
			err := c.asked(ctx, func(ctx context.Context) error { return do(ctx, c) })
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				l.Total++
			case !errors.Is(err, errNothing):
				code, _ := Refusal(err)
				l.refuse(code, 1)
			}
			return nil
		})
	}
	_ = g.Wait() // nothing that was started answers an error
	return l
}

// asked is ask with an error: errNothing when the connection has ended, the context's when that ends first.
func (c *client) asked(ctx context.Context, do func(context.Context) error) error {
	result := make(chan error, 1)
	if c.ask(ctx, func(ctx context.Context) bool { result <- do(ctx); return true }) {
		return <-result
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errNothing
}

// all does something that takes no time with the matching clients.
func (s *Service) all(o Order, do func(*client)) Listing {
	except := make(map[string]bool, len(o.Except))
	for _, id := range o.Except {
		except[id] = true
	}
	var l Listing
	for _, c := range s.matching(o.Query) {
		if !except[c.id] {
			do(c)
			l.Total++
		}
	}
	return l
}

// survey asks the whole fleet and adds the answers up.
func (s *Service) survey(ctx context.Context, method string, o Order) (Listing, error) {
	if err := s.check(method, o); err != nil {
		return Listing{}, err
	}
	params, err := encodeOrder(o)
	if err != nil {
		return Listing{}, err
	}
	if len(params) > limit.OrderBytes {
		return Listing{}, errLimitExceeded
	}
	// A little less than the command has: a node that doesn't answer is named, rather than the command failed.
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-surveyMargin))
		defer cancel()
	}
	answers, missing, err := s.o.Bus.Survey(ctx, method, params)
	if err != nil {
		return Listing{}, err
	}
	all := Listing{Connections: []Connection{}}
	for _, a := range answers {
		var l Listing
		if a.Error != "" || json.Unmarshal(a.Data, &l) != nil {
			all.Missing = append(all.Missing, a.Node)
			continue
		}
		all.add(l)
	}
	for _, n := range missing {
		all.Missing = append(all.Missing, n.ID)
	}
	return all, nil
}

const surveyMargin = 200 * time.Millisecond
