package conn

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/centrifugal/protocol"

	"tideline/node/feed"
	"tideline/node/hub"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/token"
)

// Bits of SubscribeRequest.flag.
const flagRejectUnrecovered = 1 << 1

// subscribe checks, reserves the channel, and joins it. The reply is written by the hub, right before the first publication.
func (c *client) subscribe(ctx context.Context, id uint32, req *protocol.SubscribeRequest) error {
	sub, err := c.permitted(ctx, req)
	if err != nil {
		return err
	}
	if err := c.reserve(req.Channel, sub); err != nil {
		return err
	}
	return c.enter(ctx, req, sub, func(j feed.Joined, held int) (func() []byte, error) {
		if req.Recover && !j.Recovered && req.Flag&flagRejectUnrecovered != 0 {
			return nil, errUnrecoverable
		}
		return func() []byte {
			defer c.recovering.Add(int64(-held))
			return replyFrame(c.format, &protocol.Reply{Id: id, Subscribe: c.subscribeResult(req, sub, j)})
		}, nil
	})
}

// permitted makes the subscription that is asked for, or says why the client may not have it.
func (c *client) permitted(ctx context.Context, req *protocol.SubscribeRequest) (*subscription, error) {
	ns, err := c.readable(req.Channel)
	if err != nil {
		return nil, err
	}
	if req.Tf != nil || req.Type != 0 {
		return nil, errNotAvailable // tags filter, map and shared-poll subscriptions
	}
	if ns.Token && req.Token == "" {
		return nil, errPermission
	}
	sub := &subscription{ns: ns}
	if req.Token != "" {
		c.out.Flush() // as in enter: keys may have to be fetched
		sub.token, err = c.subscriptionToken(ctx, req.Channel, req.Token)
	}
	return sub, err
}

// reserve takes the channel's place among the client's, so that a second subscribe is told.
func (c *client) reserve(name string, sub *subscription) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs[name] != nil {
		return errAlreadySub
	}
	if !sub.serverSide && !c.subscribes.take(1, time.Now()) {
		return errTooManyRequests
	}
	if len(c.subs) >= c.s.o.ChannelsPerClient {
		return errLimitExceeded
	}
	c.subs[name] = sub
	return nil
}

// enter makes the presence entry and joins the channel; on failure the channel's place is given up. answer makes the frame that goes before the
// first publication, or refuses; held is how many bytes of c.recovering belong to it.
func (c *client) enter(ctx context.Context, req *protocol.SubscribeRequest, sub *subscription,
	answer func(j feed.Joined, held int) (func() []byte, error)) error {
	name := req.Channel
	if sub.ns.Presence || req.Recover || !c.s.feed.Current(name) {
		c.out.Flush() // this may take a while: what is already answered must not wait for it
	}
	err := c.enterPresence(ctx, name, sub)
	if err == nil {
		var since *bus.Position
		if req.Recover && sub.ns.HistorySize > 0 {
			since = &bus.Position{Epoch: req.Epoch, Offset: req.Offset}
		}
		hs := hub.NewSubscription(c.out, name, hub.Wishes{Members: sub.ns.JoinLeave && req.JoinLeave, Newest: sub.ns.Newest})
		var no error
		err = c.s.feed.Join(ctx, name, since, func(j feed.Joined) {
			held := c.hold(&j)
			frame, refused := answer(j, held)
			if slices.ContainsFunc(j.Missed, func(p *bus.Publication) bool { return !fits(c.format, p) }) {
				refused = byeInappropriate
			}
			if no = refused; no != nil {
				c.recovering.Add(int64(-held))
				return
			}
			c.mu.Lock()
			sub.hub = hs
			sub.epoch, sub.acked = j.Top.Epoch, j.Top.Offset
			if j.Recovered {
				sub.acked = since.Offset // what is delivered again has not been confirmed
			}
			c.mu.Unlock()
			c.s.hub.Enter(hs, j.Top, frame)
			c.viaHub.Store(true)
		})
		if err == nil && no != nil {
			c.s.feed.Release(name)
			err = no
		}
	}
	if err == nil {
		return nil
	}
	c.mu.Lock()
	delete(c.subs, name)
	entered := sub.entered
	c.mu.Unlock()
	if entered {
		c.s.leaving.put(leave{member{name, c.id}, sub.ns.JoinLeave})
	}
	return err
}

// hold reserves room in the client's queue for what was missed. All that is being recovered and what is queued already stay under half of the queue:
// otherwise the client would be disconnected as slow, recover, and be disconnected again, for ever. What has no room is not recovered.
func (c *client) hold(j *feed.Joined) int {
	n := 0
	for _, p := range j.Missed {
		n += len(p.Data)
		if p.Info != nil {
			n += len(p.Info.User) + len(p.Info.Client) + len(p.Info.ConnInfo) + len(p.Info.ChanInfo)
		}
		for k, v := range p.Tags {
			n += len(k) + len(v)
		}
	}
	if n > 0 && c.recovering.Add(int64(n))+int64(c.out.Waiting()) > int64(c.s.recoveryBytes()) {
		c.recovering.Add(int64(-n))
		j.Missed, j.Recovered = nil, false
		return 0
	}
	return n
}

func (c *client) enterPresence(ctx context.Context, name string, sub *subscription) error {
	if !sub.ns.Presence {
		return nil
	}
	if err := c.s.leaving.wait(ctx, member{name, c.id}); err != nil {
		return err
	}
	c.mu.Lock()
	sub.entered = true // first: an entry whose answer is lost must be removed, too
	c.mu.Unlock()
	return c.s.lease.Enter(ctx, name, c.infoOn(name), sub.ns.JoinLeave)
}

// subscribeResult says where the subscription stands and what the client missed.
func (c *client) subscribeResult(req *protocol.SubscribeRequest, sub *subscription, j feed.Joined) *protocol.SubscribeResult {
	recoverable := sub.ns.HistorySize > 0 && (sub.ns.Recover || req.Recoverable || req.Recover)
	res := &protocol.SubscribeResult{Recoverable: recoverable, Positioned: recoverable || req.Positioned, Epoch: j.Top.Epoch, Offset: j.Top.Offset,
		WasRecovering: req.Recover, Recovered: req.Recover && j.Recovered}
	res.Expires, res.Ttl = lifetime(sub.token.Expires)
	if len(j.Missed) > 0 {
		res.Publications = make([]*protocol.Publication, len(j.Missed))
		for i, p := range j.Missed {
			res.Publications[i] = wirePublication(p)
		}
	}
	return res
}

// serverSubscriptions joins the channels that the token names and answers their results for the connect reply.
func (c *client) serverSubscriptions(ctx context.Context, names []string, asked map[string]*protocol.SubscribeRequest) (map[string]*protocol.SubscribeResult, error) {
	if len(names) == 0 {
		return nil, nil
	}
	results := make(map[string]*protocol.SubscribeResult, len(names))
	for _, name := range names {
		ns, err := c.s.o.Table.Lookup(name) // the token's signer has decided who may: permissions are not asked
		if err != nil {
			c.s.log.Warn("token names a channel that can't be", "channel", name, "error", err)
			continue
		}
		sub := &subscription{ns: ns, serverSide: true}
		if err := c.reserve(name, sub); err != nil {
			if errors.Is(err, errAlreadySub) {
				continue
			}
			return nil, err
		}
		req := &protocol.SubscribeRequest{Channel: name, JoinLeave: true, Positioned: true}
		if old := asked[name]; old != nil {
			req.Recover, req.Epoch, req.Offset = old.Recover, old.Epoch, old.Offset
		}
		var joined feed.Joined
		if err := c.enter(ctx, req, sub, func(j feed.Joined, _ int) (func() []byte, error) { joined = j; return nil, nil }); err != nil {
			return nil, err
		}
		results[name] = c.subscribeResult(req, sub, joined)
	}
	return results, nil
}

// unsubscribe is never refused.
func (c *client) unsubscribe(id uint32, req *protocol.UnsubscribeRequest) error {
	reply := func() []byte {
		return replyFrame(c.format, &protocol.Reply{Id: id, Unsubscribe: &protocol.UnsubscribeResult{}})
	}
	c.mu.Lock()
	sub := c.subs[req.Channel]
	delete(c.subs, req.Channel)
	c.mu.Unlock()
	if sub == nil {
		c.out.Send(reply())
		return nil
	}
	c.drop(req.Channel, sub, reply)
	return nil
}

// subscriptionToken verifies a token for one channel and this user.
func (c *client) subscriptionToken(ctx context.Context, name, given string) (token.Claims, error) {
	claims, err := c.s.o.Verifier.Verify(ctx, given)
	switch {
	case errors.Is(err, token.ErrExpired):
		return token.Claims{}, errTokenExpired
	case errors.Is(err, token.ErrInvalid):
		c.s.log.Info("subscription token refused", "client", c.id, "remote", c.remote, "error", err)
		return token.Claims{}, errPermission
	case err != nil:
		return token.Claims{}, err
	case claims.Channel != name || claims.User != c.user() || c.s.refuses(claims):
		return token.Claims{}, errPermission
	}
	return claims, nil
}

// subRefresh takes a new token for a subscription that was made with one.
func (c *client) subRefresh(ctx context.Context, req *protocol.SubRefreshRequest) (*protocol.Reply, string, error) {
	const method = "sub_refresh"
	c.mu.Lock()
	sub := c.subs[req.Channel]
	c.mu.Unlock()
	switch {
	case sub == nil:
		return nil, method, errPermission
	case req.Token == "" || sub.token.Channel == "":
		return nil, method, errBadRequest
	}
	claims, err := c.subscriptionToken(ctx, req.Channel, req.Token)
	if errors.Is(err, errTokenExpired) {
		return nil, method, byeSubExpired // as with refresh: an error would be the last word
	}
	if err != nil {
		return nil, method, err
	}
	c.mu.Lock()
	sub.token = claims
	c.mu.Unlock()
	res := &protocol.SubRefreshResult{}
	res.Expires, res.Ttl = lifetime(claims.Expires)
	return &protocol.Reply{SubRefresh: res}, method, nil
}

// subscribed reports whether the client is in the channel.
func (c *client) subscribed(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	sub := c.subs[name]
	return sub != nil && sub.hub != nil
}

func (c *client) who() channel.Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}
