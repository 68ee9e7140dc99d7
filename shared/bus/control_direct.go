package bus

// Direct messages: one node asks another one, by its address, and gets its answer. Nobody else hears of it, and nothing is kept: a message
// that is lost on its way is an error of the asker's, at its deadline.

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tideline/shared/limit"
)

// directChannel starts the internal channel on which a node hears what is for it alone; its address follows.
const directChannel = "$node:"

const (
	// DirectBytes is the most that a direct message, or its answer, may carry.
	DirectBytes = 1 << 20
	// DirectTimeout bounds an Ask whose context has no earlier deadline.
	DirectTimeout = limit.CommandBudget

	directAtOnce = 512      // messages that a node is answering; what comes past them is dropped
	directHeld   = 32 << 20 // bytes of them
	directMemory = 4096     // ids of messages that are recognised when they are heard twice
)

// ErrNobody says that no node listens at an address: it has ended, or there never was one.
var ErrNobody = errors.New("nobody at that address")

// AskedError is what the node that was asked failed with.
type AskedError struct{ Text string }

func (e *AskedError) Error() string { return e.Text }

// direct is what stands in front of a message's data, on a line of its own. A message is a question, with From, or an answer.
type direct struct {
	ID   string `json:"id"`
	From string `json:"from,omitempty"`
	// Millis is how long the asker waits from the publication on.
	Millis int64  `json:"ms,omitempty"`
	Error  string `json:"error,omitempty"`
}

// directs is the part of a Control that sends and answers direct messages.
type directs struct {
	address string
	asked   func(ctx context.Context, data []byte) ([]byte, error)

	working sync.WaitGroup // Go only in Heard, which is not called any more when Run waits
	dropped atomic.Uint64

	// owned by Heard
	seen  map[string]struct{} // ids
	order []string            // of seen, a ring
	next  int

	mu      sync.Mutex
	running context.Context                // set by Run before anything is heard
	waiting map[string]chan<- directAnswer // by id
	hears   chan struct{}                  // closed while answers can be heard
	deaf    bool                           // they can't
	busy    int                            // messages that are being answered
	held    int                            // bytes of them
}

type directAnswer struct {
	data []byte
	err  error
}

func newDirects(asked func(context.Context, []byte) ([]byte, error)) *directs {
	if asked == nil {
		asked = func(context.Context, []byte) ([]byte, error) { return nil, errors.New("this node answers nothing") }
	}
	return &directs{address: randomHex(addressBytes), asked: asked, seen: make(map[string]struct{}, directMemory), order: make([]string, directMemory),
		waiting: make(map[string]chan<- directAnswer), hears: make(chan struct{}), deaf: true}
}

// listening notes whether the server sends what comes to the address.
func (d *directs) listening(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case on && d.deaf:
		close(d.hears)
	case !on && !d.deaf:
		d.hears = make(chan struct{})
	}
	d.deaf = !on
}

// hearing is closed while answers can be heard.
func (d *directs) hearing() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hears
}

// addressBytes is how much randomness an address has: it is no secret, but must not come twice.
const addressBytes = 8

func isAddress(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 2*addressBytes && s == strings.ToLower(s)
}

// Address is where Ask finds this node. NewControl makes a new one every time.
func (c *Control) Address() string { return c.direct.address }

// Ask sends data to the node at an address and waits for what its ControlOptions.Asked answers, until the context ends or for DirectTimeout.
// Messages to one node may be answered in any order: what must follow waits for the answer.
//
// Errors: ErrTooLarge; ErrNobody at once; *AskedError for what the other node says; ErrUnavailable when no answer came: the message may have
// been dealt with. Run must be running.
func (c *Control) Ask(ctx context.Context, address string, data []byte) ([]byte, error) {
	if !isAddress(address) { // it may come from a client, and becomes part of a pub/sub channel's name
		return nil, fmt.Errorf("ask: %w", ErrNobody)
	}
	if len(data) > DirectBytes {
		return nil, fmt.Errorf("ask: %w: %d bytes, at most %d", ErrTooLarge, len(data), DirectBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, DirectTimeout)
	defer cancel()
	id := randomHex(16)
	answer := make(chan directAnswer, 1)
	c.direct.mu.Lock()
	c.direct.waiting[id] = answer
	c.direct.mu.Unlock()
	defer func() {
		c.direct.mu.Lock()
		delete(c.direct.waiting, id)
		c.direct.mu.Unlock()
	}()
	select {
	case <-c.direct.hearing(): // an answer that comes earlier would be lost
	case <-ctx.Done():
		return nil, unavailable("ask", ctx.Err())
	}
	deadline, _ := ctx.Deadline()
	heard, err := c.bus.send(ctx, address, direct{ID: id, From: c.direct.address, Millis: time.Until(deadline).Milliseconds()}, data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask: %w", err)
	case heard == 0:
		return nil, fmt.Errorf("ask: %w", ErrNobody)
	}
	select {
	case a := <-answer:
		return a.data, a.err
	case <-ctx.Done():
		return nil, unavailable("ask", ctx.Err())
	}
}

// send publishes a direct message and answers how many connections have heard it: none says that there is no such node. It travels as a
// publication does, at a position that means nothing.
func (b *Bus) send(ctx context.Context, address string, head direct, data []byte) (heard int64, err error) {
	line, err := json.Marshal(head)
	if err != nil {
		return 0, err
	}
	payload := make([]byte, 0, len(directEnvelope)+len(line)+1+len(data))
	payload = append(append(append(append(payload, directEnvelope...), line...), '\n'), data...)
	to := b.key(keyChannel, directChannel+address)
	err = b.retry(ctx, "send", func(ctx context.Context) (err error) {
		if b.cluster != nil {
			heard, err = b.client.SPublish(ctx, to, payload).Result()
		} else {
			heard, err = b.client.Publish(ctx, to, payload).Result()
		}
		return err
	})
	return heard, err
}

const directEnvelope = "1 p 0.0 1\n{}\n"

// heardDirect sorts a message: an answer wakes its asker, a question is answered beside. It doesn't block.
func (c *Control) heardDirect(message []byte) {
	d := c.direct
	line, data := message, []byte(nil)
	for i, b := range message {
		if b == '\n' {
			line, data = message[:i], message[i+1:]
			break
		}
	}
	var head direct
	if err := json.Unmarshal(line, &head); err != nil || head.ID == "" {
		c.bus.log.Warn("direct message not understood", "error", err)
		return
	}
	if head.From == "" {
		d.answered(head, data)
		return
	}
	if _, again := d.seen[head.ID]; again {
		return // both connections hear it while they are rotated; and a sender repeats what may have been lost
	}
	delete(d.seen, d.order[d.next])
	d.order[d.next], d.seen[head.ID] = head.ID, struct{}{}
	d.next = (d.next + 1) % len(d.order)
	d.mu.Lock()
	ctx := d.running
	d.mu.Unlock()
	ctx, ok := d.begin(len(data))
	if !ok {
		return
	}
	until := time.Now().Add(min(time.Duration(head.Millis)*time.Millisecond, DirectTimeout))
	d.working.Go(func() {
		defer d.end(len(data))
		if err := c.answerDirect(ctx, head, data, until); err != nil && ctx.Err() == nil {
			c.bus.log.Warn("direct message not answered", "error", err)
		}
	})
}

func (c *Control) answerDirect(ctx context.Context, head direct, data []byte, until time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	back := direct{ID: head.ID}
	answer, err := c.direct.asked(ctx, data)
	switch {
	case err != nil:
		answer, back.Error = nil, err.Error()
	case len(answer) > DirectBytes:
		answer, back.Error = nil, fmt.Sprintf("answer of %d bytes, at most %d", len(answer), DirectBytes)
	}
	_, err = c.bus.send(ctx, head.From, back, answer) // an asker who has gone hears nothing, and needs nothing
	return err
}

// begin takes a message in, or drops it when there are too many.
func (d *directs) begin(size int) (context.Context, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy >= directAtOnce || d.held+size > directHeld {
		d.dropped.Add(1)
		return nil, false
	}
	d.busy++
	d.held += size
	return d.running, true
}

func (d *directs) end(size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy--
	d.held -= size
}

// answered wakes who asked; nobody may wait any more.
func (d *directs) answered(head direct, data []byte) {
	d.mu.Lock()
	answer := d.waiting[head.ID]
	delete(d.waiting, head.ID)
	d.mu.Unlock()
	if answer == nil {
		return
	}
	a := directAnswer{data: data}
	if head.Error != "" {
		a = directAnswer{err: &AskedError{head.Error}}
	}
	answer <- a // it has room for the one
}
