package conn

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"

	"github.com/centrifugal/protocol"
	"github.com/centrifugal/protocol/cfjson"
	"golang.org/x/sync/errgroup"

	"tideline/node/feed"
	"tideline/shared/bus"
)

// A unidirectional client says once who it is and what it wants to hear, in a ConnectRequest, and is sent pushes from then on. What it asks for is
// checked as the commands of other clients are. It can't be answered, nor ask again: whatever is wrong, then or later, ends the connection with a
// code that says whether coming back helps.

// queryConnect is the parameter of the URL in which the request to connect, or the first commands of a stream of events, may come: browsers can't
// send a body, nor headers, with an EventSource.
const queryConnect = "cf_connect"

// uni reports whether the client is unidirectional.
func (c *client) uni() bool { return formats[c.format].commands == nil }

// connectInURL reads the request from the URL; nil: there is none.
func connectInURL(r *http.Request) (*protocol.ConnectRequest, error) {
	given := r.URL.Query().Get(queryConnect)
	if given == "" {
		return nil, nil
	}
	req, err := decodeConnect([]byte(given))
	if err != nil {
		return nil, errors.New(queryConnect + ` is not a request to connect, {"token": "…", "subs": {"…": {}}}`)
	}
	return req, nil
}

func decodeConnect(data []byte) (*protocol.ConnectRequest, error) {
	req := new(protocol.ConnectRequest)
	if err := cfjson.Unmarshal(data, req, 0); err != nil {
		return nil, err
	}
	for name, sub := range req.Subs {
		if sub == nil { // null: nothing in particular is asked for
			sub = &protocol.SubscribeRequest{}
			req.Subs[name] = sub
		}
		sub.Channel = name
	}
	return req, nil
}

// hear takes the first message of a unidirectional client for its request. What comes later says nothing, and counts. Called by the reader.
func (c *client) hear(data []byte) {
	if !c.affords(1) || c.heard {
		return
	}
	req, err := decodeConnect(data)
	if err != nil {
		c.s.log.Info("no request to connect", "client", c.id, "remote", c.remote, "error", err)
		c.close(byeBadRequest)
		return
	}
	c.listen(req)
}

// listen connects a unidirectional client, off the caller's stack. It is called once, by the reader or before that has started.
func (c *client) listen(req *protocol.ConnectRequest) {
	c.heard = true
	c.order(func(ctx context.Context) {
		res, err := c.establish(ctx, req)
		if err != nil {
			c.unheard(ctx, err)
			return
		}
		push := &protocol.Push{Connect: &protocol.Connect{Client: res.Client, Version: res.Version, Data: res.Data,
			Subs: res.Subs, Expires: res.Expires, Ttl: res.Ttl, Ping: res.Ping}}
		if c.resumed != nil {
			c.out.Uncork(c.resumedFrame(push))
		} else {
			c.out.Uncork(pushFrame(c.format, push))
		}
		c.recovering.Store(0)
	})
}

// unheard ends a connection that can't be made, with what the error would have been.
func (c *client) unheard(ctx context.Context, err error) {
	var bye disconnect
	var no refusal
	switch {
	case errors.As(err, &bye):
	case errors.As(err, &no):
		bye = no.ending()
		c.s.meter.errors.WithLabelValues("connect", strconv.Itoa(int(no.code))).Inc()
	case c.ctx.Err() != nil:
		return // the client has gone
	default:
		level := slog.LevelWarn
		if errors.Is(err, bus.ErrUnavailable) {
			level = slog.LevelDebug // the bus says so itself, once
		}
		c.s.log.Log(ctx, level, "connect failed", "client", c.id, "error", err)
		bye = errInternal.ending()
		c.s.meter.errors.WithLabelValues("connect", strconv.Itoa(int(errInternal.code))).Inc()
	}
	c.close(bye)
}

// ending is the goodbye in place of an error, for whom it can't be told.
func (r refusal) ending() disconnect {
	switch r.code {
	case errUnauthorized.code:
		return byeInvalidToken
	case errTokenExpired.code:
		return byeExpired
	case errPermission.code:
		return byePermission
	case errLimitExceeded.code:
		return byeChannelLimit
	case errUnknownChannel.code, errBadRequest.code:
		return byeBadRequest
	case errNotAvailable.code:
		return byeNotAvailable
	case errTooManyRequests.code:
		return byeTooManyRequests
	}
	return byeServerError
}

// wished subscribes a unidirectional client to what it asks for beside what its token names, and adds the results to those. One that fails
// fails all.
func (c *client) wished(ctx context.Context, asked map[string]*protocol.SubscribeRequest, results map[string]*protocol.SubscribeResult) (map[string]*protocol.SubscribeResult, error) {
	all := make(map[string]*protocol.SubscribeResult, len(asked)+len(results))
	for name, res := range results {
		all[name] = res
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for name, req := range asked {
		if results[name] != nil {
			continue
		}
		g.Go(func() error {
			defer c.recovered()
			res, err := c.wish(ctx, req)
			mu.Lock()
			defer mu.Unlock()
			all[name] = res
			return err
		})
	}
	return all, g.Wait()
}

// wish is subscribe for a unidirectional client. The subscription can't be made again on this connection, so that it ends with it: it counts as
// the server's.
func (c *client) wish(ctx context.Context, req *protocol.SubscribeRequest) (*protocol.SubscribeResult, error) {
	sub, err := c.permitted(ctx, req)
	if err != nil {
		return nil, err
	}
	sub.serverSide = true
	if err := c.reserve(req.Channel, sub); err != nil {
		return nil, err
	}
	var joined feed.Joined
	err = c.enter(ctx, req, sub, func(j feed.Joined, _ int) (func() []byte, error) { joined = j; return nil, nil })
	if err != nil {
		return nil, err
	}
	return c.subscribeResult(req, sub, joined), nil
}
