package conn

import (
	"context"
	"errors"
	"time"

	"github.com/centrifugal/protocol"

	"tideline/shared/channel"
	"tideline/shared/token"
)

// connect authenticates, subscribes to the channels that the token names, and answers before anything of theirs is sent.
// followed: a subscribe is next in the same frame, and will have it written.
func (c *client) connect(ctx context.Context, id uint32, req *protocol.ConnectRequest, followed bool) (*protocol.Reply, string, error) {
	const method = "connect"
	if c.is(connected) {
		return nil, method, byeBadRequest
	}
	res, err := c.establish(ctx, req)
	if err != nil {
		return nil, method, err
	}
	c.out.UncorkWith(replyFrame(c.format, &protocol.Reply{Id: id, Connect: res}))
	if !followed {
		c.out.Flush()
	}
	c.recovering.Store(0)
	return nil, method, nil
}

// establish authenticates and subscribes. When it has, what the hub has for the connection is held back until the caller has answered.
func (c *client) establish(ctx context.Context, req *protocol.ConnectRequest) (*protocol.ConnectResult, error) {
	c.setState(refused)
	claims, err := c.authenticate(ctx, req.Token)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.claims = claims
	c.identity = channel.Identity{User: claims.User, Roles: claims.Roles}
	c.mu.Unlock()
	if !c.s.admit(c, claims.User) {
		return nil, byeUserLimit
	}
	c.out.Cork()
	if c.resumed != nil {
		c.resume(req, claims.Channels)
	}
	subs, err := c.serverSubscriptions(ctx, claims.Channels, req.Subs)
	if err == nil && c.uni() {
		subs, err = c.wished(ctx, req.Subs, subs)
	}
	if err != nil {
		c.abandon()
		return nil, err
	}
	res := &protocol.ConnectResult{Client: c.id, Version: c.s.o.Version, Data: c.s.greeting, Subs: subs,
		Ping: uint32((c.s.o.PingInterval + time.Second - 1) / time.Second), Pong: true}
	if c.session != nil {
		res.Session, res.Node = c.session.id, c.s.control.Address()
	}
	res.Expires, res.Ttl = lifetime(claims.Expires)
	c.setState(connected)
	c.stale.Stop()
	if c.s.refuses(claims) {
		return nil, byeInvalidToken // revoked while we were at it: who was not connected yet was passed over
	}
	c.s.log.Debug("connected", "client", c.id, "user", claims.User, "remote", c.remote, "sdk", req.Name)
	return res, nil
}

// abandon takes the server-side subscriptions of a connect that has failed back, so that another one begins anew.
func (c *client) abandon() {
	c.mu.Lock()
	subs := c.subs
	c.subs = map[string]*subscription{}
	c.mu.Unlock()
	for name, sub := range subs {
		c.drop(name, sub, nil)
	}
	c.s.hub.Settle(c.out) // from here on the hub has nothing for this connection
	c.recovering.Store(0)
	c.out.Discard()
}

func (c *client) setState(s state) {
	c.mu.Lock()
	c.state = s
	c.mu.Unlock()
}

// authenticate verifies the token of the connect command, or the one that came with the upgrade.
func (c *client) authenticate(ctx context.Context, given string) (token.Claims, error) {
	if c.canary() {
		return token.Claims{}, nil
	}
	if given == "" {
		given = c.bearer
	}
	if given == "" && c.s.o.Table.Anonymous {
		return token.Claims{}, nil
	}
	if given == "" {
		return token.Claims{}, errUnauthorized
	}
	claims, err := c.s.o.Verifier.Verify(ctx, given)
	if err == nil && (claims.Channel != "" || c.s.refuses(claims)) {
		return token.Claims{}, byeInvalidToken // a subscription token is no pass, and a revoked one no longer
	}
	return claims, c.tokenError(err)
}

func (c *client) tokenError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, token.ErrExpired):
		return errTokenExpired
	case errors.Is(err, token.ErrInvalid):
		c.s.log.Info("token refused", "client", c.id, "remote", c.remote, "error", err)
		return byeInvalidToken
	}
	return err
}

// lifetime turns a token's end into the protocol's expires and ttl; at least a second, because 0 would mean never.
func lifetime(end time.Time) (expires bool, ttl uint32) {
	if end.IsZero() {
		return false, 0
	}
	return true, uint32(max(1, time.Until(end)/time.Second))
}

// refresh takes a new token of the same user in place of one that is about to expire. Subscriptions that it no longer allows are ended.
func (c *client) refresh(ctx context.Context, req *protocol.RefreshRequest) (*protocol.Reply, string, error) {
	const method = "refresh"
	if req.Token == "" {
		return nil, method, errBadRequest
	}
	claims, err := c.s.o.Verifier.Verify(ctx, req.Token)
	if errors.Is(err, token.ErrExpired) {
		return nil, method, byeExpired // SDKs take an error for the last word; on this they come back, are told 109, and fetch another
	}
	if err := c.tokenError(err); err != nil {
		return nil, method, err
	}
	if claims.User != c.user() || claims.Channel != "" || c.s.refuses(claims) {
		return nil, method, byeInvalidToken
	}
	id := channel.Identity{User: claims.User, Roles: claims.Roles}
	c.mu.Lock()
	c.claims = claims
	c.identity = id
	c.mu.Unlock()
	c.dropWhere(unsubServer, "permission denied", func(name string, sub *subscription) bool {
		return !sub.serverSide && sub.ns.MaySubscribe(id, name) != nil
	})
	res := &protocol.RefreshResult{Client: c.id, Version: c.s.o.Version}
	res.Expires, res.Ttl = lifetime(claims.Expires)
	return &protocol.Reply{Refresh: res}, method, nil
}
