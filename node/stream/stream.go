// Package stream feeds channels whose source must be read exactly once in the fleet: a container's log, Docker's events, a log group.
//
// A node that has subscribers of such a channel competes for the channel's lock; the one that holds it reads the source and publishes for all, each
// publication fenced by the lock and written together with the source's cursor. When its last local subscriber leaves, the lock is
// released at once and another node with subscribers goes on from the cursor; when it dies, is paused or is cut off from Redis, its lock expires, and it has
// stopped by itself before (bus.Lock). So nothing is published twice, and what a source can't resume is announced as a gap.
package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
)

// lockName is the name of the lock that each stream's channel has.
const lockName = "stream"

// readersAtOnce is the most streams that one node reads. More wait, without the lock, so that another node may read them.
const readersAtOnce = 64

// Waits between attempts: for a lock that another node holds, and after a source or Redis has failed. Both are jittered by half.
const (
	heldWait = time.Second
	failMin  = 500 * time.Millisecond
	failMax  = 15 * time.Second
)

// Kind is what an Event is.
type Kind int

// Kinds of events. Only lines are subject to LinesPerSecond.
const (
	Line Kind = iota
	Note      // what the source says about itself: a container has stopped
	Gap       // lines may be missing here; Text says why
)

// Event is one thing that a source has seen. Cursor is where a reader that saw it goes on; it may stay empty when that has not changed.
type Event struct {
	Kind   Kind
	Time   time.Time
	Stream string // stdout, stderr, or what the source calls it
	Text   string
	Cut    bool            // the source has more of the line than Text
	Data   json.RawMessage // instead of Text, for structured events; well under limit.DataBytes
	Cursor string
}

// Source reads one kind of thing. Its methods may be called concurrently.
type Source interface {
	// Check answers nil when the channel names something of this source; otherwise an error that says what is wrong with the name.
	Check(channel string) error
	// Read reads from after cursor ("" when nobody has read before) and emits, in order, until ctx ends. emit waits when publishing is slow; its
	// error ends the reading and is returned. A source that can't go on exactly after cursor emits a Gap first. Read may return an error when it can't
	// go on; it is called again then, with the cursor that was published last.
	Read(ctx context.Context, channel, cursor string, emit func(Event) error) error
}

// Options of New.
type Options struct {
	Bus   *bus.Bus
	Table *channel.Table
	// Sources by the namespace whose channels they feed.
	Sources map[string]Source
	// Metrics takes the streams' metrics (shared/metric); nil keeps them to themselves.
	Metrics prometheus.Registerer
	Log     *slog.Logger
	Lock    bus.LockOptions // zero but in tests
}

// Streams runs the sources of the channels that this node has subscribers of. Follow and Check are safe for concurrent use and don't block.
type Streams struct {
	o     Options
	meter *meter
	slots chan struct{}

	mu      sync.Mutex
	running context.Context // nil before Run
	watched map[string]context.CancelFunc
	wg      sync.WaitGroup
}

// New makes Streams; nothing is read before Run.
func New(o Options) *Streams {
	return &Streams{o: o, meter: newMeter(o.Metrics, o.Sources), slots: make(chan struct{}, readersAtOnce), watched: map[string]context.CancelFunc{}}
}

// Run reads until ctx ends, and returns when all sources have been closed and their locks released.
func (s *Streams) Run(ctx context.Context) error {
	s.mu.Lock()
	s.running = ctx
	for name := range s.watched {
		s.startLocked(name)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// Follow tells whether this node has subscribers of a channel; channels that no source feeds are ignored.
func (s *Streams) Follow(name string, on bool) {
	if s.source(name) == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stop, watched := s.watched[name]
	switch {
	case on && !watched:
		s.watched[name] = nil
		if s.running != nil {
			s.startLocked(name)
		}
	case !on && watched:
		delete(s.watched, name)
		if stop != nil {
			stop()
		}
	}
}

// Check answers nil, or why a client can't subscribe to a channel that a source would feed.
func (s *Streams) Check(name string) error {
	if src := s.source(name); src != nil {
		return src.Check(name)
	}
	return nil
}

func (s *Streams) source(name string) Source { return s.o.Sources[channel.NamespaceOf(name)] }

func (s *Streams) startLocked(name string) {
	ctx, cancel := context.WithCancel(s.running)
	s.watched[name] = cancel
	s.wg.Go(func() {
		defer cancel()
		s.compete(ctx, name)
	})
}

// compete tries to hold the channel's lock, and reads while it does, until ctx ends.
func (s *Streams) compete(ctx context.Context, name string) {
	fail := failMin
	for ctx.Err() == nil {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		err := s.o.Bus.Hold(ctx, name, lockName, s.o.Lock, func(ctx context.Context, l *bus.Lock) error { return s.read(ctx, name, l) })
		<-s.slots
		if ctx.Err() != nil {
			return
		}
		wait := heldWait
		if !errors.Is(err, bus.ErrHeld) {
			if time.Since(began) > failMax {
				fail = failMin
			}
			wait, fail = fail, min(2*fail, failMax)
			s.o.Log.Warn("stream interrupted", "channel", name, "error", err, "again_in", wait)
		}
		pause(ctx, wait/2+rand.N(wait))
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// read reads the source from the lock's cursor and publishes, until ctx ends with the lock.
func (s *Streams) read(ctx context.Context, name string, l *bus.Lock) error {
	ns, err := s.o.Table.Lookup(name)
	if err != nil {
		return err
	}
	s.o.Log.Info("stream begins here", "channel", name, "cursor", l.Cursor())
	defer s.meter.begins(ns.Name, l.Cursor())()
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p := newPublisher(func(data []byte, cursor string) error {
		// Not longer than the lock: what is published after it has gone is refused.
		once, cancel := context.WithTimeout(reading, limit.PublishTimeout)
		defer cancel()
		_, err := s.o.Bus.Publish(once, bus.Publication{Channel: name, Data: data, Fence: l.Fence(cursor),
			History: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL}})
		return err
	}, s.meter.counters(ns.Name))
	var publishing sync.WaitGroup
	publishing.Go(func() {
		if err := p.run(reading); err != nil {
			stop(publishError{err})
		}
	})
	err = s.readSource(reading, name, l.Cursor(), p.event)
	p.end()
	publishing.Wait()
	if cause := context.Cause(reading); cause != nil {
		err = cause
	}
	reason := s.stopReason(ctx, err)
	s.meter.stops.WithLabelValues(ns.Name, reason).Inc()
	s.o.Log.Info("stream ends here", "channel", name, "reason", reason, "dropped", p.totalDropped)
	return fmt.Errorf("read %s: %w", name, err)
}

// readSource turns a panic of a source into its error: what it reads comes from outside, and the node holds everybody's sockets.
func (s *Streams) readSource(ctx context.Context, name, cursor string, emit func(Event) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err = s.source(name).Read(ctx, name, cursor, emit); err == nil {
		err = errors.New("the source has ended")
	}
	return err
}
