package outbox

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"tideline/shared/channel"
	"tideline/shared/todo/bolt"
	"tideline/shared/trace"
)

// The local loop's bounds.
const (
	localBatch = 100
	retryFirst = 100 * time.Millisecond
	retryMax   = 5 * time.Second
	sweepEvery = 10 * time.Minute
)

// Local drains the bbolt store's outbox into the bus: what the DynamoDB stream and this package's handler are in AWS. An event is
// forgotten only after the bus has it, so what was saved is announced although the process died in between.
type Local struct {
	Store      *bolt.Store
	Publisher  Publisher
	Namespaces *channel.Table // nil: channel.Shipped
	Log        *slog.Logger   // nil discards
	Meter      Meter          // nil discards
}

// Run drains until ctx ends, and then returns nil. While the bus is away it tries again, at most every retryMax. One Run per store at a time.
func (l Local) Run(ctx context.Context) error {
	if l.Log == nil {
		l.Log = slog.New(slog.DiscardHandler)
	}
	p, err := newPublishing(l.Publisher, l.Namespaces, l.Meter)
	if err != nil {
		return err
	}
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	wait := time.Duration(0) // until the next try after a failure; 0: none failed
	for {
		switch err := l.drain(ctx, p); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if wait == 0 { // one line per outage
				l.Log.WarnContext(ctx, "outbox waits for the bus", "error", err)
			}
			wait = min(max(2*wait, retryFirst), retryMax)
		default:
			wait = 0
		}
		if !l.pause(ctx, wait, sweep.C) {
			return nil
		}
	}
}

// pause waits for the next event or try, and answers false when ctx has ended.
func (l Local) pause(ctx context.Context, wait time.Duration, sweep <-chan time.Time) bool {
	wake := l.Store.Wake()
	var retry <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		defer t.Stop()
		wake, retry = nil, t.C // new events don't hasten a bus that is away
	}
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-retry:
	case <-sweep:
		if err := l.Store.Sweep(ctx); err != nil && ctx.Err() == nil {
			l.Log.ErrorContext(ctx, "sweep of expired items failed", "error", err)
		}
	}
	return true
}

// drain publishes what is pending, in the order of the writes, until nothing is left.
func (l Local) drain(ctx context.Context, p *publishing) error {
	for {
		pending, err := l.Store.Pending(ctx, localBatch)
		if err != nil || len(pending) == 0 {
			return err
		}
		var done []uint64
		var failed error
		for _, e := range pending {
			of := trace.From(ctx, e.Trace)
			err := p.publish(of, e.User, e.Event)
			if poison(err) { // it would be refused forever
				l.Log.ErrorContext(of, "event can't be announced", "user", e.User, "type", e.Event.Type, "error", err)
				err = nil
			}
			if failed = err; failed != nil {
				break
			}
			done = append(done, e.Sequence)
		}
		if err := l.Store.Announced(ctx, done); err != nil {
			return errors.Join(failed, err)
		}
		if failed != nil {
			return failed
		}
	}
}
