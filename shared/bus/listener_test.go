package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// recorder is a Handler that keeps everything it is told, and can be made to block.
type recorder struct {
	mu          sync.Mutex
	heard       map[string][]Message
	confirmed   map[string]int
	interrupted map[string]int
	open        map[string]bool // Confirmed came after the last Interrupted
	wrong       []string        // calls that the contract forbids
	gate        chan struct{}   // when set, Heard waits for it
}

func newRecorder() *recorder {
	return &recorder{heard: map[string][]Message{}, confirmed: map[string]int{}, interrupted: map[string]int{}, open: map[string]bool{}}
}

func (r *recorder) Heard(channel string, m Message) {
	r.mu.Lock()
	gate := r.gate
	if !r.open[channel] {
		r.wrong = append(r.wrong, "heard "+channel+" without a confirmation")
	}
	r.heard[channel] = append(r.heard[channel], m)
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (r *recorder) Confirmed(channel string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.confirmed[channel]++
	r.open[channel] = true
}

func (r *recorder) Interrupted(channel string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open[channel] {
		r.wrong = append(r.wrong, "interrupted "+channel+" which was not confirmed")
	}
	r.interrupted[channel]++
	r.open[channel] = false
}

func (r *recorder) messages(channel string) []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard[channel]
}

func (r *recorder) counts(channel string) (confirmed, interrupted int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.confirmed[channel], r.interrupted[channel]
}

// confirmedTimes waits until a channel has been confirmed n times.
func (r *recorder) confirmedTimes(t testing.TB, n int, channels ...string) {
	t.Helper()
	eventually(t, func() error {
		for _, c := range channels {
			if got, _ := r.counts(c); got < n {
				return fmt.Errorf("%s was confirmed %d times, want %d", c, got, n)
			}
		}
		return nil
	})
}

// hears waits until a channel's last message has the data.
func (r *recorder) hears(t testing.TB, channel, data string) {
	t.Helper()
	eventually(t, func() error {
		ms := r.messages(channel)
		if len(ms) == 0 || string(ms[len(ms)-1].Publication.Data) != data {
			return fmt.Errorf("%s: %d messages, none is %q", channel, len(ms), data)
		}
		return nil
	})
}

func (r *recorder) check(t testing.TB) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.wrong {
		t.Error(w)
	}
}

// both tells two handlers.
type both struct {
	r *recorder
	c *consumer
}

func (b both) Heard(channel string, m Message) { b.r.Heard(channel, m); b.c.Heard(channel, m) }
func (b both) Confirmed(channel string)        { b.r.Confirmed(channel); b.c.Confirmed(channel) }
func (b both) Interrupted(channel string)      { b.r.Interrupted(channel); b.c.Interrupted(channel) }

// follow runs a subscriber until the test ends. A machine that stops for a moment must not cost it a connection: tests in which a confirmation or a
// probe is to be missed say so in change.
func follow(t testing.TB, b *Bus, h Handler, change func(*tuning)) *Subscriber {
	t.Helper()
	s := b.NewSubscriber(h)
	s.tune.confirm, s.tune.probeTimeout = testTimeout, testTimeout
	if change != nil {
		change(&s.tune)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(testTimeout):
			t.Errorf("Run has not returned %v after its context ended", testTimeout)
		}
	})
	return s
}

// consumer is what a node does with a subscriber, in its smallest form: it holds a position per channel, delivers last+1, drops what it
// had, reads the stream where there is a gap or a confirmation, and notes when that can't be done. Ten lines of truth for the tests.
type consumer struct {
	b      *Bus
	events chan event
	done   chan struct{}

	mu       sync.Mutex
	pos      map[string]Position
	got      map[string][]string // data delivered, in order
	told     map[string]int      // resyncs announced
	repaired int                 // publications that came from the stream
}

type event struct {
	channel string
	m       *Message // nil: confirmed
}

func newConsumer(t testing.TB, b *Bus) *consumer {
	c := &consumer{
		b: b, events: make(chan event, 1<<18), done: make(chan struct{}),
		pos: map[string]Position{}, got: map[string][]string{}, told: map[string]int{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	go c.run(ctx)
	t.Cleanup(func() { cancel(); <-c.done })
	return c
}

func (c *consumer) Heard(channel string, m Message) { c.events <- event{channel, &m} }
func (c *consumer) Confirmed(channel string)        { c.events <- event{channel, nil} }
func (c *consumer) Interrupted(string)              {}

func (c *consumer) run(ctx context.Context) {
	defer close(c.done)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-c.events:
			c.mu.Lock()
			pos, known := c.pos[e.channel]
			c.mu.Unlock()
			if e.m != nil && known && e.m.Epoch == pos.Epoch {
				if e.m.Publication.Offset <= pos.Offset {
					continue
				}
				if e.m.Publication.Offset == pos.Offset+1 {
					c.deliver(e.channel, Position{pos.Epoch, pos.Offset + 1}, e.m.Publication)
					continue
				}
			}
			c.sync(ctx, e.channel, pos, known)
		}
	}
}

func (c *consumer) deliver(channel string, pos Position, pubs ...Publication) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range pubs {
		c.got[channel] = append(c.got[channel], string(p.Data))
	}
	c.pos[channel] = pos
}

// sync asks Redis, the only judge.
func (c *consumer) sync(ctx context.Context, channel string, pos Position, known bool) {
	for ctx.Err() == nil {
		if !known {
			_, top, err := c.b.History(ctx, channel, Page{})
			if err == nil {
				c.deliver(channel, top)
				return
			}
			continue
		}
		pubs, top, err := c.b.Since(ctx, channel, pos)
		switch {
		case errors.Is(err, ErrUnrecoverable):
			c.mu.Lock()
			c.told[channel]++
			c.pos[channel] = top
			c.mu.Unlock()
			return
		case err == nil:
			c.mu.Lock()
			c.repaired += len(pubs)
			c.mu.Unlock()
			c.deliver(channel, top, pubs...)
			return
		}
	}
}

// recheck compares every position with Redis, as nodes do at intervals.
func (c *consumer) recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for channel := range c.pos {
		c.events <- event{channel, nil}
	}
}

func (c *consumer) state(channel string) (got []string, told int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got[channel], c.told[channel]
}

// ready waits until the consumer has a position in every channel.
func (c *consumer) ready(t testing.TB, channels ...string) {
	t.Helper()
	eventually(t, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, ch := range channels {
			if _, ok := c.pos[ch]; !ok {
				return errors.New("no position in " + ch)
			}
		}
		return nil
	})
}

// wantExactly waits until the channel's publications are exactly "0", "1", … n-1 and fails at once when they can't be.
func (c *consumer) wantExactly(t testing.TB, channel string, n int) {
	t.Helper()
	eventually(t, func() error {
		got, told := c.state(channel)
		if told > 0 {
			t.Fatalf("%s: told to resync %d times, nothing was lost", channel, told)
		}
		for i, data := range got {
			if data != fmt.Sprint(i) {
				t.Fatalf("%s: publication %d of %d is %q", channel, i, len(got), data)
			}
		}
		if len(got) < n {
			return fmt.Errorf("%s: %d publications, want %d", channel, len(got), n)
		}
		if len(got) > n {
			t.Fatalf("%s: %d publications, want %d", channel, len(got), n)
		}
		return nil
	})
}
