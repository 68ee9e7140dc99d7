package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tideline/test/load/swarm"
)

const (
	// publishers is how many publications may be under way at once; those of one channel are not.
	publishers = 8
	// behindMost is how many publications may wait for their publisher before the generator is the limit, and says so.
	behindMost = 4096
	// settleMost is how long the last publications may take to arrive.
	settleMost = time.Minute
	// quietMost is how long nothing may come until what hasn't come is taken for lost, where some may be.
	quietMost = 2 * time.Second
	// connectMost is how long it may take until all connections are subscribed.
	connectMost = 90 * time.Second
)

var errBehind = errors.New("publishing is too slow: the generator, Redis or the API is the limit")

// bench is a system with subscribers.
type bench struct {
	*system
	swarm    *swarm.Swarm
	began    time.Time
	cancel   context.CancelFunc
	done     chan struct{}
	expected func(channel uint16) int // subscribers that are to hear a channel
	quiet    time.Duration            // quietMost; longer where nothing may be lost after all
}

// crowd says who subscribes to what.
type crowd struct {
	subscribers int
	channel     func(i int) uint16 // of connection i; nil: all on 0
	class       func(i int) int
	reconnect   bool
	receive     int // bytes of the sockets' receive buffers
}

func channelName(n uint16) string { return fmt.Sprintf("bench:%d", n) }

// gather makes the swarm and connects it.
func gather(s *system, c crowd) (*bench, error) {
	if c.channel == nil {
		c.channel = func(int) uint16 { return 0 }
	}
	b := &bench{system: s, began: time.Now(), done: make(chan struct{}), quiet: quietMost}
	var err error
	b.swarm, err = swarm.New(swarm.Options{Dialect: s.kind.dialect, Targets: s.targets, Token: s.token, Class: c.class, Reconnect: c.reconnect,
		ReceiveBuffer: c.receive, Start: b.began,
		Channel: func(i int) (uint16, string) { n := c.channel(i); return n, channelName(n) }})
	if err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(context.Background())
	go func() { defer close(b.done); b.swarm.Run(ctx) }()
	counts := map[uint16]int{}
	for i := range c.subscribers {
		counts[c.channel(i)]++
	}
	b.expected = func(n uint16) int { return counts[n] }
	until, cancel := context.WithTimeout(ctx, connectMost)
	defer cancel()
	if err := b.swarm.Connect(until, c.subscribers); err != nil {
		b.Close()
		return nil, fmt.Errorf("%s: %w", s.kind.name, err)
	}
	return b, nil
}

// Close ends the swarm. The system goes on.
func (b *bench) Close() {
	b.cancel()
	<-b.done
}

// stream is a schedule of publications: rate a second, on the channels in turn.
type stream struct {
	rate     float64
	channels []uint16
	size     int
	viaHTTP  bool
}

// measured is what a run gave.
type measured struct {
	verdict   swarm.Verdict
	lost      int // connections
	wall      time.Duration
	cpu       time.Duration // of the servers
	generator time.Duration // CPU of the generator
	latency   [swarm.Classes]swarm.Histogram
}

// perMillion is CPU seconds of the servers per million deliveries.
func (m *measured) perMillion() float64 {
	return m.cpu.Seconds() / float64(max(m.verdict.Delivered, 1)) * 1e6
}

// run publishes for a time, waits until all has arrived, and checks. loose leaves the judgement of the verdict to the caller.
func (b *bench) run(name string, length time.Duration, loose bool, streams ...stream) (*measured, error) {
	b.swarm.Reset()
	before, err := b.cpu()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	profiled := b.profile(name, length)
	counts, err := b.publishAll(length, streams)
	profiled()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.kind.name, err)
	}
	var want uint64
	for c, n := range counts {
		want += uint64(n) * uint64(b.expected(c))
	}
	m := &measured{}
	if err := b.settle(want, loose); err != nil {
		return nil, fmt.Errorf("%s: %w", b.kind.name, err)
	}
	m.wall = time.Since(start)
	after, err := b.cpu()
	if err != nil {
		return nil, err
	}
	m.cpu, m.generator = after.servers-before.servers, after.generator-before.generator
	m.verdict = b.swarm.End(func(c uint16) uint32 { return counts[c] })
	m.lost = b.swarm.Look().Lost
	for i := range m.latency {
		m.latency[i] = b.swarm.Latency(i)
	}
	if !loose && !m.verdict.Clean() {
		return nil, fmt.Errorf("%s: deliveries are wrong: %+v", b.kind.name, m.verdict)
	}
	return m, nil
}

// settle waits until as much has been delivered as was published; loose, until nothing more comes.
func (b *bench) settle(want uint64, loose bool) error {
	last, since := uint64(0), time.Now()
	for began := time.Now(); ; {
		now := b.swarm.Look()
		if now.Failure != nil && !loose {
			return now.Failure
		}
		if now.Verdict.Delivered >= want {
			return nil
		}
		if now.Verdict.Delivered > last {
			last, since = now.Verdict.Delivered, time.Now()
		}
		if loose && time.Since(since) > b.quiet {
			return nil
		}
		if time.Since(began) > settleMost || time.Since(since) > settleMost/2 {
			if loose {
				return nil
			}
			return fmt.Errorf("%d of %d deliveries have come: %+v", now.Verdict.Delivered, want, now.Verdict)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type times struct{ servers, generator time.Duration }

func (b *bench) cpu() (t times, err error) {
	for _, n := range b.nodes {
		if !n.Running() {
			continue
		}
		c, err := cpu(n.PID())
		if err != nil {
			return t, err
		}
		t.servers += c
	}
	t.generator, err = cpu(os.Getpid())
	return t, err
}

// publishAll runs the streams by the clock, and answers how much each channel was given.
func (b *bench) publishAll(length time.Duration, streams []stream) (map[uint16]uint32, error) {
	counts := map[uint16]uint32{}
	var mu sync.Mutex
	errs := make([]error, len(streams))
	var wg sync.WaitGroup
	start := time.Now()
	for i, s := range streams {
		wg.Go(func() {
			mine, err := b.publishStream(start, length, s)
			errs[i] = err
			mu.Lock()
			defer mu.Unlock()
			for c, n := range mine {
				counts[c] += n
			}
		})
	}
	wg.Wait()
	return counts, errors.Join(errs...)
}

// publishStream publishes number i at start + i/rate, whatever became of those before: a server that stalls doesn't slow the schedule down.
func (b *bench) publishStream(start time.Time, length time.Duration, s stream) (map[uint16]uint32, error) {
	publish := b.publish
	if s.viaHTTP {
		publish = b.publishHTTP
	}
	ctx, cancel := context.WithTimeout(context.Background(), length+settleMost)
	defer cancel()
	type job struct {
		place swarm.Place
		name  string
	}
	workers := min(publishers, len(s.channels))
	queues := make([]chan job, workers)
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for i := range queues {
		queues[i] = make(chan job, behindMost/workers)
		wg.Go(func() {
			for j := range queues[i] {
				if failed.Load() != nil {
					continue
				}
				if err := publish(ctx, j.name, swarm.Data(j.place, s.size)); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	counts := map[uint16]uint32{}
	total := int(s.rate * length.Seconds())
	var err error
	for i := 0; i < total && failed.Load() == nil && err == nil; i++ {
		due := start.Add(time.Duration(float64(i) / s.rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		at := i % len(s.channels)
		c := s.channels[at]
		select {
		case queues[at%workers] <- job{swarm.Place{Channel: c, Seq: counts[c], Due: due.Sub(b.began)}, channelName(c)}:
			counts[c]++
		default:
			err = errBehind
		}
	}
	for _, q := range queues {
		close(q)
	}
	wg.Wait()
	if e := failed.Load(); e != nil {
		err = *e
	}
	return counts, err
}
