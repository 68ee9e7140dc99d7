package conn

import (
	"context"
	"errors"

	"github.com/centrifugal/protocol"

	"tideline/shared/bus"
	"tideline/shared/channel"
)

// readable finds a channel's namespace for reading commands: what may be subscribed to may be asked about.
func (c *client) readable(name string) (channel.Namespace, error) {
	ns, err := c.s.o.Table.Lookup(name)
	switch {
	case err != nil:
	case c.canary():
		if name != channel.Canary {
			err = channel.ErrDenied
		}
	default:
		c.mu.Lock()
		id := c.identity
		c.mu.Unlock()
		err = ns.MaySubscribe(id, name)
	}
	if err == nil && c.s.o.Streams.Check(name) != nil {
		return ns, errBadRequest
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
	if err := c.s.beginRead(ctx); err != nil {
		return nil, method, err
	}
	defer c.s.endRead()
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

// history reads a page: at most limit.HistoryPage publications, and at most as many bytes as a recovery. Whoever wants more goes on from
// the last one's offset.
func (c *client) history(ctx context.Context, req *protocol.HistoryRequest) (*protocol.Reply, string, error) {
	const method = "history"
	ns, err := c.readable(req.Channel)
	if err != nil {
		return nil, method, err
	}
	if ns.HistorySize == 0 {
		return nil, method, errNotAvailable
	}
	if err := c.s.beginRead(ctx); err != nil {
		return nil, method, err
	}
	defer c.s.endRead()
	page := bus.Page{Limit: int(req.Limit), Reverse: req.Reverse}
	if req.Since != nil {
		page.Since = &bus.Position{Epoch: req.Since.Epoch, Offset: req.Since.Offset}
		if page.Since.Epoch == "" { // the offset alone is known: of whatever epoch there is
			tops, errs := c.s.o.Bus.Positions(ctx, []string{req.Channel})
			if errs[0] != nil {
				return nil, method, errs[0]
			}
			page.Since.Epoch = tops[0].Epoch
		}
	}
	pubs, top, err := c.s.o.Bus.History(ctx, req.Channel, page)
	if errors.Is(err, bus.ErrUnrecoverable) {
		return nil, method, errUnrecoverable
	}
	if err != nil {
		return nil, method, err
	}
	res := &protocol.HistoryResult{Epoch: top.Epoch, Offset: top.Offset, Publications: make([]*protocol.Publication, 0, len(pubs))}
	room := c.s.recoveryBytes() - historyRoom
	for i := range pubs {
		if !fits(c.format, &pubs[i]) {
			return nil, method, byeInappropriate
		}
		p := wirePublication(&pubs[i])
		if room -= p.SizeCF() + pubOverhead; room < 0 {
			break
		}
		res.Publications = append(res.Publications, p)
	}
	return &protocol.Reply{History: res}, method, nil
}

const (
	// historyRoom is what a history reply takes beside its publications, and pubOverhead each of those beside itself; in bytes, and more
	// than enough.
	historyRoom = 256
	pubOverhead = 8
	// readsAtOnce is how many history and presence commands of all clients of a node read from Redis together: each may hold some
	// megabytes. The others wait, at most as long as a command may.
	readsAtOnce = 16
)

// beginRead waits for one of the readsAtOnce places, which endRead gives back.
func (s *Service) beginRead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err // the time went by behind the client's own commands, as when Redis is away: nobody asks for too much
	}
	select {
	case s.reads <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errTooManyRequests
	}
}

func (s *Service) endRead() { <-s.reads }
