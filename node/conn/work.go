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
	"tideline/shared/limit"
)

// atOnce is how many subscribe commands of one client are under way together: an SDK sends all of them in one frame after a reconnect, and
// one after the other would add up their round trips.
const atOnce = 64

// replyBatch is about how many bytes of data the replies of one frame may carry.
const replyBatch = 16 << 10

// task is reading a client's messages, or working its inbox off, by a hand.
type task struct {
	c    *client
	read bool
}

func (t task) run() {
	if t.read {
		t.c.readOn()
		return
	}
	t.c.work()
	t.c.worker.Done()
}

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
	size := reply.SizeCF()
	if size > r.c.s.recoveryBytes() { // it would fill half of the queue at once
		reply, size = errLimitExceeded.reply(reply.Id), 0
	}
	r.held = append(r.held, reply)
	r.size += size
	if r.size >= replyBatch {
		r.send()
	}
}

func (r *replies) send() {
	if len(r.held) == 0 {
		return
	}
	if r.c.viaHub.Swap(false) { // the replies to subscribes and unsubscribes that came before
		r.c.s.hub.Settle(r.c.out)
	}
	r.c.out.Send(repliesFrame(r.c.format, r.held))
	r.held, r.size = nil, 0
}

// work runs the client's commands in order, off the reader's stack, until the inbox is empty or the connection has ended. Subscribes
// that follow one another run together; whatever comes next waits for them, also a later frame, whose own budget runs meanwhile: limit.CommandBudget
// at most, and only when Redis is slow. Replies wait for one another only as long as there is more to do.
func (c *client) work() {
	w := worker{c: c, back: replies{c: c}}
	defer w.running.Wait()
	defer c.recovered()
	for {
		if !c.more() {
			w.back.send()
		}
		f, ok := c.next(&w.running)
		if !ok {
			return
		}
		if f.order != nil {
			w.order(f)
			continue
		}
		if !w.frame(f) {
			w.back.send()
			c.close(byeBadRequest)
			return
		}
	}
}

// worker is what work owns.
type worker struct {
	c       *client
	running sync.WaitGroup // subscribes
	slots   chan struct{}  // made for the first subscribe that runs beside others
	back    replies
}

func (w *worker) order(f inFrame) {
	w.running.Wait()
	w.back.send() // what is answered stands before what the order sends
	ctx, cancel := context.WithTimeout(w.c.ctx, limit.CommandBudget)
	defer cancel()
	f.order(ctx)
}

// frame runs the commands of one frame; it answers false at one that can't be read. After a goodbye nothing more is run.
func (w *worker) frame(f inFrame) bool {
	decoder := formats[w.c.format].commands(f.data)
	deadline := f.at.Add(limit.CommandBudget)
	var held *protocol.Command // the one before the last that was read: whether it is the frame's last is known then
	for !w.c.gone() {
		cmd, err := decoder.Decode()
		if err != nil && !errors.Is(err, io.EOF) {
			if held != nil {
				w.command(held, deadline, position{})
			}
			w.running.Wait()
			w.c.s.log.Info("frame not understood", "client", w.c.id, "error", err)
			return false
		}
		if cmd != nil {
			if held != nil {
				w.command(held, deadline, position{followed: cmd.Subscribe != nil && cmd.Id != 0})
			}
			held = cmd
		}
		if err != nil {
			break
		}
	}
	if held != nil && !w.c.gone() {
		w.command(held, deadline, position{last: !w.c.more()})
	}
	return true
}

// position is where in its frame a command stands.
type position struct {
	followed bool // by a subscribe
	last     bool // no other is waiting; a subscribe then needs no goroutine to itself
}

func (w *worker) command(cmd *protocol.Command, deadline time.Time, at position) {
	if cmd.Subscribe != nil || cmd.Unsubscribe != nil {
		w.back.send() // theirs goes by the hub, and the order of commands is the order of replies
	}
	if cmd.Subscribe == nil || cmd.Id == 0 || !w.c.is(connected) {
		w.running.Wait()
		w.back.add(w.c.run(cmd, deadline, at.followed))
		return
	}
	if at.last {
		w.subscribe(cmd, deadline)
		return
	}
	if w.slots == nil {
		w.slots = make(chan struct{}, atOnce)
	}
	w.slots <- struct{}{} // a subscribe ends at its deadline
	w.running.Go(func() {
		defer func() { <-w.slots }()
		defer w.c.recovered()
		w.subscribe(cmd, deadline)
	})
}

func (w *worker) subscribe(cmd *protocol.Command, deadline time.Time) {
	alone := replies{c: w.c}
	alone.add(w.c.run(cmd, deadline, false))
	alone.send()
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
func (c *client) run(cmd *protocol.Command, deadline time.Time, followed bool) *protocol.Reply {
	ctx := &commandContext{parent: c.ctx, deadline: deadline}
	defer ctx.end()
	r, method, err := c.dispatch(ctx, cmd, followed)
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
func (c *client) dispatch(ctx context.Context, cmd *protocol.Command, followed bool) (*protocol.Reply, string, error) {
	if cmd.Send != nil {
		return nil, "send", byeNotAvailable
	}
	if cmd.Id == 0 {
		if isPong(cmd) {
			c.pong() // its line in a batch has been counted
			return nil, "pong", nil
		}
		return nil, "none", byeBadRequest
	}
	if cmd.Connect != nil {
		return c.connect(ctx, cmd.Id, cmd.Connect, followed)
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
