package conn

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/centrifugal/protocol"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// atOnce is how many subscribe commands of one client are under way together: an SDK sends all of them in one frame after a reconnect, and
// one after the other would add up their round trips.
const atOnce = 64

// replyBatch is about how many bytes of data the replies of one frame may carry.
const replyBatch = 16 << 10

// replies collects what goes back in one frame while there are more commands to run. The working goroutine owns it.
type replies struct {
	c    *client
	held []*protocol.Reply
	size int
}

func (r *replies) add(reply *protocol.Reply) {
	if reply == nil {
		return
	}
	r.held = append(r.held, reply)
	r.size += reply.SizeCF()
	if r.size >= replyBatch {
		r.send()
	}
}

func (r *replies) send() {
	if len(r.held) == 0 {
		return
	}
	r.c.out.Send(textFrame(r.c.format, func(b []byte) []byte {
		for i, reply := range r.held {
			if i > 0 {
				b = append(b, '\n')
			}
			b = reply.AppendJSON(b)
		}
		return b
	}))
	r.held, r.size = nil, 0
}

// work runs the client's commands in order, off the reader's stack, until the inbox is empty. Subscribes that follow one another run
// together; whatever comes next waits for them. Replies wait for one another only as long as there is more to do.
func (c *client) work() {
	var running sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	back := replies{c: c}
	defer running.Wait()
	defer c.recovered()
	for {
		if !c.more() {
			back.send()
		}
		f, ok := c.next(&running)
		if !ok {
			return
		}
		decoder := protocol.NewJSONCommandDecoder(f.data)
		for {
			cmd, err := decoder.Decode()
			if err != nil && !errors.Is(err, io.EOF) {
				c.s.log.Info("frame not understood", "client", c.id, "error", err)
				back.send()
				c.close(byeBadRequest)
				return
			}
			if cmd != nil {
				deadline := f.at.Add(limit.CommandBudget)
				if cmd.Subscribe != nil && cmd.Id != 0 && c.is(connected) {
					slots <- struct{}{}
					running.Go(func() {
						defer func() { <-slots }()
						defer c.recovered()
						alone := replies{c: c}
						alone.add(c.run(cmd, deadline))
						alone.send()
					})
				} else {
					running.Wait()
					back.add(c.run(cmd, deadline))
				}
			}
			if err != nil {
				break
			}
		}
	}
}

// recovered turns a panic in a command into the end of its connection: the others' sockets must not die of it.
func (c *client) recovered() {
	if p := recover(); p != nil {
		c.s.log.Error("panic in a command", "client", c.id, "panic", p, "stack", string(debug.Stack()))
		c.close(byeServerError)
	}
}

func (c *client) is(s state) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == s
}

// run runs one command and answers its reply, or nil when the command has sent it or none is due.
func (c *client) run(cmd *protocol.Command, deadline time.Time) *protocol.Reply {
	ctx, cancel := context.WithDeadline(c.ctx, deadline)
	defer cancel()
	r, method, err := c.dispatch(ctx, cmd)
	var bye disconnect
	var no refusal
	switch {
	case err == nil:
		if r != nil {
			r.Id = cmd.Id
		}
		return r
	case errors.As(err, &bye):
		c.close(bye)
		return nil
	case errors.As(err, &no):
	case c.ctx.Err() != nil:
		return nil // the client has gone
	default:
		level := slog.LevelWarn
		if errors.Is(err, bus.ErrUnavailable) {
			level = slog.LevelDebug // the bus says so itself, once
		}
		c.s.log.Log(ctx, level, "command failed", "client", c.id, "method", method, "error", err)
		no = errInternal
	}
	c.s.meter.errors.WithLabelValues(method, strconv.Itoa(int(no.code))).Inc()
	c.s.log.Debug("command refused", "client", c.id, "method", method, "code", no.code)
	return no.reply(cmd.Id)
}

// dispatch answers a reply, or nil when it has been sent or none is due.
func (c *client) dispatch(ctx context.Context, cmd *protocol.Command) (*protocol.Reply, string, error) {
	if cmd.Send != nil {
		return nil, "send", byeNotAvailable
	}
	if cmd.Id == 0 {
		if isPong(cmd) {
			c.pong()
			return nil, "pong", nil
		}
		return nil, "none", byeBadRequest
	}
	if cmd.Connect != nil {
		return c.connect(ctx, cmd.Id, cmd.Connect)
	}
	switch {
	case c.is(refused):
		return nil, "none", nil // the SDK sends its subscribes in one frame with connect, and is already waiting to try again
	case !c.is(connected):
		return nil, "none", byeBadRequest
	case cmd.Subscribe != nil:
		return nil, "subscribe", c.subscribe(ctx, cmd.Id, cmd.Subscribe)
	case cmd.Unsubscribe != nil:
		return nil, "unsubscribe", c.unsubscribe(cmd.Id, cmd.Unsubscribe)
	case cmd.Publish != nil:
		return c.publish(ctx, cmd.Publish)
	case cmd.Presence != nil:
		return c.presence(ctx, cmd.Presence)
	case cmd.PresenceStats != nil:
		return c.presenceStats(ctx, cmd.PresenceStats)
	case cmd.History != nil:
		return c.history(ctx, cmd.History)
	case cmd.Rpc != nil:
		return c.call(ctx, cmd.Rpc)
	case cmd.Refresh != nil:
		return c.refresh(ctx, cmd.Refresh)
	case cmd.SubRefresh != nil:
		return c.subRefresh(ctx, cmd.SubRefresh)
	case cmd.Ping != nil:
		return nil, "ping", errNotAvailable
	}
	return nil, "none", byeBadRequest
}

func isPong(cmd *protocol.Command) bool {
	return cmd.Id == 0 && cmd.Connect == nil && cmd.Subscribe == nil && cmd.Unsubscribe == nil && cmd.Publish == nil && cmd.Presence == nil &&
		cmd.PresenceStats == nil && cmd.History == nil && cmd.Ping == nil && cmd.Rpc == nil && cmd.Refresh == nil && cmd.SubRefresh == nil
}

// connect authenticates, subscribes to the channels that the token names, and answers before anything of theirs is sent.
func (c *client) connect(ctx context.Context, id uint32, req *protocol.ConnectRequest) (*protocol.Reply, string, error) {
	const method = "connect"
	if c.is(connected) {
		return nil, method, byeBadRequest
	}
	c.setState(refused)
	claims, err := c.authenticate(ctx, req.Token)
	if err != nil {
		return nil, method, err
	}
	c.mu.Lock()
	c.claims = claims
	c.identity = channel.Identity{User: claims.User, Roles: claims.Roles}
	c.mu.Unlock()
	if !c.s.admit(c, claims.User) {
		return nil, method, byeUserLimit
	}
	c.out.Cork()
	subs, err := c.serverSubscriptions(ctx, claims.Channels, req.Subs)
	if err != nil {
		c.out.Uncork(nil)
		return nil, method, err
	}
	res := &protocol.ConnectResult{Client: c.id, Version: c.s.o.Version, Data: c.s.greeting, Subs: subs,
		Ping: uint32((c.s.o.PingInterval + time.Second - 1) / time.Second), Pong: true}
	res.Expires, res.Ttl = lifetime(claims.Expires)
	c.setState(connected)
	c.stale.Stop()
	if c.s.control.Refuses(claims.User, claims.Session, claims.ID, claims.IssuedAt) {
		return nil, method, byeInvalidToken // revoked while we were at it: who was not connected yet was passed over
	}
	c.s.log.Debug("connected", "client", c.id, "user", claims.User, "remote", c.remote, "sdk", req.Name)
	c.out.Uncork(replyFrame(c.format, &protocol.Reply{Id: id, Connect: res}))
	return nil, method, nil
}

func (c *client) setState(s state) {
	c.mu.Lock()
	c.state = s
	c.mu.Unlock()
}

// authenticate verifies the token of the connect command, or the one that came with the upgrade.
func (c *client) authenticate(ctx context.Context, given string) (token.Claims, error) {
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
	if err == nil && (claims.Channel != "" || c.s.control.Refuses(claims.User, claims.Session, claims.ID, claims.IssuedAt)) {
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

// refresh takes a new token of the same user in place of one that is about to expire.
func (c *client) refresh(ctx context.Context, req *protocol.RefreshRequest) (*protocol.Reply, string, error) {
	const method = "refresh"
	if req.Token == "" {
		return nil, method, errBadRequest
	}
	claims, err := c.s.o.Verifier.Verify(ctx, req.Token)
	if err := c.tokenError(err); err != nil {
		return nil, method, err
	}
	if claims.User != c.user() || claims.Channel != "" || c.s.control.Refuses(claims.User, claims.Session, claims.ID, claims.IssuedAt) {
		return nil, method, byeInvalidToken
	}
	c.mu.Lock()
	c.claims = claims
	c.identity.Roles = claims.Roles
	c.mu.Unlock()
	res := &protocol.RefreshResult{Client: c.id, Version: c.s.o.Version}
	res.Expires, res.Ttl = lifetime(claims.Expires)
	return &protocol.Reply{Refresh: res}, method, nil
}

// readable finds a channel's namespace for reading commands: what may be subscribed to may be asked about.
func (c *client) readable(name string) (channel.Namespace, error) {
	ns, err := c.s.o.Table.Lookup(name)
	if err == nil {
		c.mu.Lock()
		id := c.identity
		c.mu.Unlock()
		err = ns.MaySubscribe(id, name)
	}
	return ns, channelError(err)
}

func channelError(err error) error {
	switch {
	case errors.Is(err, channel.ErrName):
		return errBadRequest
	case errors.Is(err, channel.ErrUnknown):
		return errUnknownChannel
	case errors.Is(err, channel.ErrDenied):
		return errPermission
	}
	return err
}

func (c *client) presence(ctx context.Context, req *protocol.PresenceRequest) (*protocol.Reply, string, error) {
	const method = "presence"
	ns, err := c.readable(req.Channel)
	if err != nil {
		return nil, method, err
	}
	if !ns.Presence {
		return nil, method, errNotAvailable
	}
	members, err := c.s.o.Bus.Presence(ctx, req.Channel)
	if err != nil {
		return nil, method, err
	}
	res := &protocol.PresenceResult{Presence: make(map[string]*protocol.ClientInfo, len(members))}
	for id, info := range members {
		res.Presence[id] = wireInfo(&info)
	}
	return &protocol.Reply{Presence: res}, method, nil
}

func (c *client) presenceStats(ctx context.Context, req *protocol.PresenceStatsRequest) (*protocol.Reply, string, error) {
	const method = "presence_stats"
	ns, err := c.readable(req.Channel)
	if err != nil {
		return nil, method, err
	}
	if !ns.Presence {
		return nil, method, errNotAvailable
	}
	stats, err := c.s.o.Bus.PresenceStats(ctx, req.Channel)
	if err != nil {
		return nil, method, err
	}
	return &protocol.Reply{PresenceStats: &protocol.PresenceStatsResult{NumClients: uint32(stats.Clients), NumUsers: uint32(stats.Users)}}, method, nil
}

func (c *client) history(ctx context.Context, req *protocol.HistoryRequest) (*protocol.Reply, string, error) {
	const method = "history"
	ns, err := c.readable(req.Channel)
	if err != nil {
		return nil, method, err
	}
	if ns.HistorySize == 0 {
		return nil, method, errNotAvailable
	}
	page := bus.Page{Limit: int(req.Limit), Reverse: req.Reverse}
	if page.Limit > limit.HistoryPage {
		return nil, method, errLimitExceeded
	}
	if req.Since != nil {
		page.Since = &bus.Position{Epoch: req.Since.Epoch, Offset: req.Since.Offset}
	}
	pubs, top, err := c.s.o.Bus.History(ctx, req.Channel, page)
	if errors.Is(err, bus.ErrUnrecoverable) {
		return nil, method, errUnrecoverable
	}
	if err != nil {
		return nil, method, err
	}
	res := &protocol.HistoryResult{Epoch: top.Epoch, Offset: top.Offset, Publications: make([]*protocol.Publication, len(pubs))}
	for i := range pubs {
		res.Publications[i] = wirePublication(&pubs[i])
	}
	return &protocol.Reply{History: res}, method, nil
}
