package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/metric"
)

const patience = 30 * time.Second

// script is a source that does what the test says.
type script struct {
	mu   sync.Mutex
	read func(ctx context.Context, emit func(Event) error) error
}

func (*script) Check(string) error { return nil }

func (s *script) Read(ctx context.Context, _, _ string, emit func(Event) error) error {
	s.mu.Lock()
	read := s.read
	s.mu.Unlock()
	return read(ctx, emit)
}

// scene is one node's streams on a Redis.
type scene struct {
	t       *testing.T
	redis   *miniredis.Miniredis
	source  *script
	streams *Streams
	metrics *prometheus.Registry
	stop    func() // ends Run and waits
}

func newScene(t *testing.T, read func(context.Context, func(Event) error) error) *scene {
	t.Helper()
	s := &scene{t: t, redis: miniredis.RunT(t), source: &script{read: read}, metrics: prometheus.NewRegistry()}
	b, err := bus.Open(t.Context(), bus.Options{URL: "redis://" + s.redis.Addr(), Stage: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s.streams = New(Options{Bus: b, Table: channel.Shipped(), Sources: map[string]Source{"docker": s.source}, Metrics: s.metrics,
		Log: slog.New(slog.DiscardHandler), Lock: bus.LockOptions{TTL: 30 * time.Second, Renew: 200 * time.Millisecond}}) // a loss is found soon, and none comes of a machine that stands still
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.streams.Run(ctx) }() // it returns nil
	s.stop = func() { cancel(); <-ended }
	t.Cleanup(func() {
		s.stop()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// value is a metric's, summed over the series that have all of the labels, each "name=value".
func (s *scene) value(name string, labels ...string) (sum float64) {
	s.t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			has := " "
			for _, l := range m.GetLabel() {
				has += l.GetName() + "=" + l.GetValue() + " "
			}
			fits := true
			for _, l := range labels {
				fits = fits && strings.Contains(has, " "+l+" ")
			}
			if fits {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (s *scene) await(what string, is func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// until is a source that has nothing to say.
func until(ctx context.Context, _ func(Event) error) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// chatty says things until it may not.
func chatty(ctx context.Context, emit func(Event) error) error {
	for i := 0; ; i++ {
		if err := emit(Event{Text: fmt.Sprint(i), Cursor: fmt.Sprint(i)}); err != nil {
			return err
		}
		pause(ctx, 5*time.Millisecond)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func TestLinesAreCounted(t *testing.T) {
	const atOnce = LinesBurst + 300
	var emitted atomic.Int64 // all of them
	var s *scene
	s = newScene(t, func(ctx context.Context, emit func(Event) error) error {
		total := 0
		for total < atOnce || s.value(metric.StreamDropped) == 0 && ctx.Err() == nil { // on a machine that stands still meanwhile nothing need be dropped
			for range atOnce {
				total++
				if err := emit(Event{Text: "x", Cursor: fmt.Sprint(total)}); err != nil {
					return err
				}
			}
		}
		emitted.Store(int64(total))
		return until(ctx, emit)
	})
	if n := s.value(metric.StreamStarts) + s.value(metric.StreamsRunning); n != 0 {
		t.Errorf("%v streams before anybody watches", n)
	}
	s.streams.Follow("docker:logs:a", true)
	s.await("all lines", func() bool {
		// Each count of dropped lines is a line of its own.
		lines, dropped := s.value(metric.StreamLines, "namespace=docker"), s.value(metric.StreamDropped, "namespace=docker")
		total := float64(emitted.Load())
		return total > 0 && dropped > 0 && lines+dropped > total && s.value(metric.StreamsRunning) == 1
	})
	if dropped, over := s.value(metric.StreamDropped), float64(emitted.Load()-LinesBurst); dropped > over {
		t.Errorf("%v lines dropped of %v over the burst", dropped, over)
	}
}

// Every way in which a stream ends is told from the others.
func TestStopsHaveTheirReason(t *testing.T) {
	const name = "docker:logs:a"
	broken := errors.New("no more paper")
	for reason, c := range map[string]struct {
		read func(context.Context, func(Event) error) error
		end  func(*scene)
	}{
		stopUnwatched: {chatty, func(s *scene) { s.streams.Follow(name, false) }},
		stopShutdown:  {chatty, func(s *scene) { s.stop() }},
		stopSource:    {func(context.Context, func(Event) error) error { return broken }, func(*scene) {}},
		stopLost: {until, func(s *scene) {
			for _, key := range s.redis.Keys() {
				if strings.HasSuffix(key, "}"+lockName) {
					s.redis.Del(key)
				}
			}
		}},
		stopPublish: {chatty, func(s *scene) { // somebody has written over the channel's history
			for _, key := range s.redis.Keys() {
				if s.redis.Type(key) == "stream" {
					s.redis.Del(key)
					if err := s.redis.Set(key, "x"); err != nil {
						s.t.Error(err)
					}
				}
			}
		}},
	} {
		t.Run(reason, func(t *testing.T) {
			s := newScene(t, c.read)
			s.streams.Follow(name, true)
			s.await("that it began", func() bool { return s.value(metric.StreamStarts, "from="+fromBeginning) > 0 })
			if reason == stopPublish || reason == stopUnwatched {
				s.await("a line", func() bool { return s.value(metric.StreamLines) > 0 })
			}
			c.end(s)
			s.await("that it ended", func() bool { return s.value(metric.StreamStops) > 0 })
			if n := s.value(metric.StreamStops, "namespace=docker", "reason="+reason); n < 1 {
				t.Errorf("another reason than %s", reason)
			}
			if reason == stopUnwatched {
				s.await("that none runs", func() bool { return s.value(metric.StreamsRunning) == 0 })
				s.streams.Follow(name, true)
				s.await("that it goes on from the cursor", func() bool { return s.value(metric.StreamStarts, "from="+fromCursor) > 0 })
			}
		})
	}
}

// Streams don't keep each other from running: with this many channels, some are in one partition of the bus.
func TestEveryStreamHasItsOwnLock(t *testing.T) {
	const channels = 40
	s := newScene(t, until)
	for i := range channels {
		s.streams.Follow(fmt.Sprint("docker:logs:c", i), true)
	}
	s.await("that all run", func() bool { return s.value(metric.StreamsRunning) == channels })
}
