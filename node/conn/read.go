package conn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"tideline/shared/limit"
)

const (
	// inboxFrames and inboxMessages (of the longest) bound what a client has sent and the node has not worked off; past them the client is
	// not read from.
	inboxFrames   = limit.CommandsBurst
	inboxMessages = 4
	// ordersMost bounds the server's own orders that wait among the client's frames. Past it the client is told to reconnect.
	ordersMost = 256
	// lingerBytes is the most that is read, to be thrown away, from a client that goes on sending after the node has said goodbye: closing a
	// socket with unread bytes resets it, and the reset would overtake the close frame.
	lingerBytes = 1 << 20
)

// inFrame is one frame as it came, with its time: Redis work for its commands has limit.CommandBudget from then. Or it is an order
// of the server's, which runs in its turn, between commands.
type inFrame struct {
	data  []byte
	at    time.Time
	order func(context.Context)
}

// read reads frames until the connection ends, and then takes it down.
func (c *client) read() {
	c.ws.SetPingHandler(func(text string) error {
		if c.affords(1) {
			c.out.Send(frame(opPong, func(b []byte) []byte { return append(b, text...) }))
		}
		return nil
	})
	c.ws.SetPongHandler(func(string) error {
		c.affords(1)
		return nil
	})
	var err error
	for err == nil {
		err = c.readMessage()
	}
	c.teardown(c.ended(err))
}

// readMessage reads one message; its error ends the connection.
func (c *client) readMessage() error {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return err
	}
	most := c.s.o.MessageBytes
	data, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	switch {
	case err != nil:
		return err
	case len(data) > most: // it was within the limit while it was compressed
		c.close(byeTooLarge)
	case kind != websocket.TextMessage:
		c.close(byeBadRequest)
	case !utf8.Valid(data): // RFC 6455, section 8.1
		c.close(byeNotUTF8)
	default:
		c.accept(data)
	}
	return nil
}

// ended lets the commands that came before the end finish, notes how it came, and answers a close frame with one. It reports whether
// the end is a fault of the client's, which may not have read why yet.
func (c *client) ended(err error) (refused bool) {
	c.settle()
	var closed *websocket.CloseError
	var network net.Error
	switch {
	case errors.As(err, &closed):
		c.s.log.Debug("closed by the client", "client", c.id, "code", closed.Code)
		c.out.Finish(closeFrame(disconnect{code: uint16(closed.Code)}))
		return false
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		c.s.log.Debug("connection lost", "client", c.id, "error", err)
		return false
	}
	bye := byeProtocolError
	if errors.Is(err, websocket.ErrReadLimit) {
		bye = byeTooLarge
	}
	c.s.log.Info("frame refused", "client", c.id, "remote", c.remote, "error", err)
	c.close(bye)
	return true
}

// settle waits until the commands that have been read are done: what was sent before a close counts. Each has its deadline.
func (c *client) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.working && c.goodbye == nil {
		c.room.Wait()
	}
}

// affords takes n from the client's budget of commands, or ends the connection.
func (c *client) affords(n int) bool {
	if c.budget.take(n, time.Now()) {
		return true
	}
	c.close(byeTooManyRequests)
	return false
}

// accept puts a frame into the inbox, or handles it when it is only a pong.
func (c *client) accept(data []byte) {
	data = bytes.TrimSpace(data)
	if len(data) == 2 && data[0] == '{' && data[1] == '}' {
		if !c.pong() {
			c.affords(1) // nobody asked
		}
		return
	}
	if !c.affords(1 + bytes.Count(data, newline)) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.goodbye == nil && len(c.inbox) > 0 && (len(c.inbox) >= inboxFrames || c.inboxSize+len(data) > inboxMessages*c.s.o.MessageBytes) {
		c.room.Wait()
	}
	c.inboxSize += len(data)
	c.putLocked(inFrame{data: data, at: time.Now()})
}

// order has something done in the client's turn: after the commands that have come before it, subscribes included, and not beside others.
// It answers false when the client has said goodbye; do may also never run, when it does so meanwhile.
func (c *client) order(do func(context.Context)) bool {
	c.mu.Lock()
	if c.orders >= ordersMost {
		c.mu.Unlock()
		c.close(byeForceReconnect)
		return false
	}
	defer c.mu.Unlock()
	c.orders++
	return c.putLocked(inFrame{order: do, at: time.Now()})
}

// ask is order, with its result. False, too, when the context or the connection ends first.
func (c *client) ask(ctx context.Context, do func(context.Context) bool) bool {
	done := make(chan bool, 1)
	if !c.order(func(ctx context.Context) { done <- do(ctx) }) {
		return false
	}
	select {
	case result := <-done:
		return result
	case <-c.ctx.Done():
		return false
	case <-ctx.Done():
		return false
	}
}

func (c *client) putLocked(f inFrame) bool {
	if c.goodbye != nil {
		return false
	}
	c.inbox = append(c.inbox, f)
	if !c.working {
		c.working = true
		c.worker.Go(c.work)
	}
	return true
}

var newline = []byte{'\n'}

// more reports whether a frame is waiting.
func (c *client) more() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.inbox) > 0
}

// gone reports whether the connection has ended or is about to.
func (c *client) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.goodbye != nil
}

// next takes a frame out of the inbox. When there is none, and the subscribes that are under way have ended too, the working
// goroutine ends.
func (c *client) next(running *sync.WaitGroup) (inFrame, bool) {
	for idle := false; ; idle = true {
		c.mu.Lock()
		if c.goodbye != nil || len(c.inbox) == 0 && idle {
			c.working, c.inbox, c.inboxSize, c.orders = false, nil, 0, 0
			c.room.Signal()
			c.mu.Unlock()
			return inFrame{}, false
		}
		if len(c.inbox) > 0 {
			f := c.inbox[0]
			c.inbox = c.inbox[1:]
			c.inboxSize -= len(f.data)
			if f.order != nil {
				c.orders--
			}
			c.room.Signal()
			c.mu.Unlock()
			return f, true
		}
		c.mu.Unlock()
		running.Wait()
	}
}

// linger lets a refused client read why before the socket closes.
func (c *client) linger() {
	if c.sock.CloseWrite() != nil {
		return // reset already
	}
	c.sock.SetReadDeadline(time.Now().Add(closeWait))
	_, _ = io.CopyN(io.Discard, c.sock.TCPConn, lingerBytes) // its end, whichever, is the connection's
}
