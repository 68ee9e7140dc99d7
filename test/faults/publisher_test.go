package faults

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
)

// callWait bounds one attempt of a publisher: some are faster than the bus's own patience, so that lost answers are repeated.
const callWait = 4 * time.Second

// ack is a publication that Redis has acknowledged.
type ack struct {
	n   uint64
	pos bus.Position
	// once: the first attempt was acknowledged. What was tried again may have been heard at another position, in an epoch that has ended.
	once bool
}

// publisher publishes numbered messages on one channel, one after the other, each until it is acknowledged, under one id each.
type publisher struct {
	bus     *bus.Bus
	channel string
	history bus.History
	name    string

	failed atomic.Int64 // attempts
	next   atomic.Uint64

	mu    sync.Mutex
	acked []ack
}

func newPublisher(t *testing.T, b *bus.Bus, name string) *publisher {
	t.Helper()
	ns, err := channel.Shipped().Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return &publisher{bus: b, channel: name, name: "faults-" + t.Name(), history: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL}}
}

// publish publishes the next message, until it is acknowledged or ctx ends.
func (p *publisher) publish(ctx context.Context) error {
	n := p.next.Add(1)
	data, err := json.Marshal(message{n})
	if err != nil {
		return err
	}
	retries := p.bus.Stats().Retries
	for failed := false; ; failed = true {
		call, cancel := context.WithTimeout(ctx, callWait)
		res, err := p.bus.Publish(call, bus.Publication{Channel: p.channel, Data: data, ID: fmt.Sprint(p.name, ":", n), History: p.history})
		cancel()
		if err == nil {
			p.mu.Lock()
			p.acked = append(p.acked, ack{n, res.Position, !failed && p.bus.Stats().Retries == retries})
			p.mu.Unlock()
			return nil
		}
		p.failed.Add(1)
		if !errors.Is(err, bus.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// burst publishes n messages.
func (p *publisher) burst(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range n {
		if err := p.publish(ctx); err != nil {
			t.Fatalf("publish on %s: %v", p.channel, err)
		}
	}
}

func (p *publisher) top() (ack, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.acked) == 0 {
		return ack{}, false
	}
	return p.acked[len(p.acked)-1], true
}

// sortAcked puts the acknowledgements in the order of their positions, for channels that several write to. They are of one epoch.
func (p *publisher) sortAcked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.SortFunc(p.acked, func(a, b ack) int { return cmp.Compare(a.pos.Offset, b.pos.Offset) })
}

func (p *publisher) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.acked)
}

// load publishes on every channel at intervals until the function that it answers is called, which waits for the last acknowledgements.
func load(t *testing.T, every time.Duration, ps ...*publisher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i, p := range ps {
		running.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			// The channels take turns rather than all publishing at the same moment.
			offset := time.NewTimer(every * time.Duration(i) / time.Duration(len(ps)))
			defer offset.Stop()
			select {
			case <-offset.C:
			case <-ctx.Done():
				return
			}
			for ctx.Err() == nil {
				finish, done := context.WithTimeout(context.Background(), time.Minute)
				err := p.publish(finish)
				done()
				if err != nil {
					t.Errorf("publish on %s: %v", p.channel, err)
					return
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return stop
}
