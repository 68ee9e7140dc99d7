package conn

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/centrifugal/protocol"

	"tideline/node/feed"
	"tideline/shared/bus"
)

// serverSubscribe subscribes the client to a channel by the server's decision: its permissions are not asked. The client is told by a push, and
// what it missed since the order's position comes after that. It holds for this connection alone; a token's channels come again with every
// connection. A client that is subscribed already stays as it is.
func (c *client) serverSubscribe(ctx context.Context, o Order) error {
	ns, err := c.s.Namespace(o.Channel)
	if err != nil {
		return err
	}
	sub := &subscription{ns: ns, serverSide: true, info: o.Info, until: o.end()}
	if err := c.reserve(o.Channel, sub); err != nil {
		if errors.Is(err, errAlreadySub) {
			return nil // it is where it should be
		}
		return err
	}
	req := &protocol.SubscribeRequest{Channel: o.Channel, JoinLeave: true, Positioned: true}
	if o.Since != nil {
		req.Recover, req.Epoch, req.Offset = true, o.Since.Epoch, o.Since.Offset
	}
	err = c.enter(ctx, req, sub, func(j feed.Joined, held int) (func() []byte, error) {
		if req.Recover && !j.Recovered {
			return nil, errUnrecoverable
		}
		return func() []byte {
			defer c.recovering.Add(int64(-held))
			return c.subscribedFrame(req, sub, j, o.Data)
		}, nil
	})
	var bye disconnect
	if errors.As(err, &bye) {
		c.close(bye)
		return errNothing
	}
	if errors.Is(err, bus.ErrTooLarge) {
		return errLimitExceeded // the presence entry, with what the token says of the client
	}
	var no refusal
	if err != nil && !errors.As(err, &no) {
		c.s.log.Warn("ordered subscription failed", "client", c.id, "channel", o.Channel, "error", err)
	}
	return err
}

// subscribedFrame tells of a subscription that the server made. Its position is the one before the first publication that follows.
func (c *client) subscribedFrame(req *protocol.SubscribeRequest, sub *subscription, j feed.Joined, data json.RawMessage) []byte {
	r := c.subscribeResult(req, sub, j)
	push := &protocol.Subscribe{Recoverable: r.Recoverable, Positioned: r.Positioned, Epoch: r.Epoch, Offset: r.Offset, Data: protocol.Raw(data)}
	if len(r.Publications) > 0 {
		push.Offset = req.Offset
	}
	replies := []*protocol.Reply{{Push: &protocol.Push{Channel: req.Channel, Subscribe: push}}}
	for _, p := range r.Publications {
		replies = append(replies, &protocol.Reply{Push: &protocol.Push{Channel: req.Channel, Pub: p}})
	}
	return repliesFrame(c.format, replies)
}

// serverRefresh lets the connection live until the order's time, whatever its token says, or ends it as expired.
func (c *client) serverRefresh(o Order) {
	if o.Expired {
		c.close(byeExpired)
		return
	}
	end := o.end()
	c.mu.Lock()
	c.claims.Expires = end
	c.mu.Unlock()
	push := &protocol.Refresh{}
	push.Expires, push.Ttl = lifetime(end)
	c.out.Send(pushFrame(c.format, &protocol.Push{Refresh: push}))
}

// message sends the client what belongs to no channel.
func (c *client) message(data json.RawMessage) {
	c.out.Send(pushFrame(c.format, &protocol.Push{Message: &protocol.Message{Data: protocol.Raw(data)}}))
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
