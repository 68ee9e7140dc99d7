package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"tideline/test/load/swarm"
)

// plan holds the lengths and sizes of the runs.
type plan struct {
	fan20, fan100, step, half, many, connect, settle, kill, others time.Duration
	subscribers, idle, killed                                      int
	// searches bounds the steps of the search for the highest rate.
	searches int
}

var (
	// full is what make bench runs.
	full = plan{fan20: 5 * time.Second, fan100: 4 * time.Second, step: 2 * time.Second, half: 3 * time.Second, many: 5 * time.Second,
		connect: 3 * time.Second, settle: 12 * time.Second, kill: 4 * time.Second, others: 5 * time.Second, subscribers: 1000, idle: 19_500, killed: 2000, searches: 7}
	// smoke is what make test runs: it shows that everything works, and measures nothing.
	smoke = plan{fan20: time.Second, fan100: time.Second / 2, step: time.Second / 2, half: time.Second / 2, many: time.Second,
		settle: time.Second / 4, kill: 2 * time.Second, others: time.Second, subscribers: 100, idle: 500, killed: 100, searches: 1}
)

// Sizes of publications in bytes, and rates a second.
const (
	size         = 128
	manyChannels = 2000
	manyRate     = 1000
	killRate     = 20

	stallSubscribers = 200
	stallers         = 5
	stallSize        = 8 << 10
	stallRate        = 40
	stallReceive     = 16 << 10

	quietChannels = 100
	quietEach     = 10
	quietRate     = 100 // all channels together
	hotSubs       = 100
	hotRate       = 200
)

// latencyMost is the p99 up to which a rate counts as sustained.
const latencyMost = 250 * time.Millisecond

// figures are what a scenario measured, by name.
type figures map[string]float64

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// group is some scenarios that share started processes.
type group struct {
	name string
	run  func(e *environment, k kind, p plan, earlier figures) (figures, error)
	// without names the systems that it doesn't concern.
	without []string
}

var groups = []group{
	{"fan", fan, nil},
	{"many", many, nil},
	{"idle", idle, []string{"centrifuge-history"}},
	{"kill", kill, nil},
	{"stall", stall, []string{"floor", "socketio"}}, // a staller stops the floor altogether
	{"hot", hot, []string{"socketio"}},
}

func (e *environment) with(k kind, nodes int, c crowd, use func(b *bench) error) error {
	s, err := e.start(k, nodes)
	defer s.End()
	if err != nil {
		return err
	}
	b, err := gather(s, c)
	if err != nil {
		return err
	}
	defer b.Close()
	return use(b)
}

// fan has many subscribers on one channel: at two rates, at the highest that the servers sustain, and at half of the peer's highest, which
// earlier has.
func fan(e *environment, k kind, p plan, earlier figures) (f figures, err error) {
	f = figures{}
	err = e.with(k, 2, crowd{subscribers: p.subscribers}, func(b *bench) error {
		at := func(name string, rate float64, length time.Duration) (*measured, error) {
			return b.run(name, length, false, stream{rate: rate, channels: []uint16{0}, size: size})
		}
		if _, err := at("warm", 50, p.step/2); err != nil { // warm
			return err
		}
		for _, run := range []struct {
			name   string
			rate   float64
			length time.Duration
		}{{"fan20", 20, p.fan20}, {"fan100", 100, p.fan100}, {"half", earlier["half"] / float64(p.subscribers), p.half}} {
			if run.rate == 0 {
				continue
			}
			m, err := at(run.name, run.rate, run.length)
			if err != nil {
				return fmt.Errorf("%s: %w", run.name, err)
			}
			f[run.name+" cpu"] = m.perMillion()
			f[run.name+" p50"], f[run.name+" p99"] = millis(m.latency[0].Quantile(0.5)), millis(m.latency[0].Quantile(0.99))
			f[run.name+" generator"] = m.generator.Seconds() / m.wall.Seconds() * 100
		}
		highest, m := b.highest(p)
		f["max"] = highest * float64(p.subscribers)
		if m != nil {
			f["max cpu"] = m.perMillion()
			f["max generator"] = m.generator.Seconds() / m.wall.Seconds() * 100
		}
		return nil
	})
	return f, err
}

// highest searches for the highest rate at which everything comes, and the p99 stays under latencyMost.
func (b *bench) highest(p plan) (rate float64, at *measured) {
	low, high := 0.0, 0.0
	try := 80.0
	for range p.searches {
		m, err := b.run("max", p.step, true, stream{rate: try, channels: []uint16{0}, size: size})
		ok := err == nil && m.verdict.Clean() && m.lost == 0 && m.latency[0].Quantile(0.99) < latencyMost
		if ok {
			low, at = try, m
		} else {
			high = try
		}
		if err == nil && (m.lost > 0 || b.swarm.Look().Failure != nil) {
			break // somebody was disconnected as slow: what follows would be another crowd
		}
		switch {
		case high == 0:
			try *= 2
		case low == 0:
			try /= 1.6
		default:
			try = (low + high) / 2
		}
	}
	return low, at
}

// many has channels with one subscriber each, published to by way of Redis and by way of the nodes' HTTP.
func many(e *environment, k kind, p plan, _ figures) (f figures, err error) {
	f = figures{}
	channels := make([]uint16, manyChannels)
	for i := range channels {
		channels[i] = uint16(i)
	}
	c := crowd{subscribers: manyChannels, channel: func(i int) uint16 { return uint16(i) }}
	err = e.with(k, 2, c, func(b *bench) error {
		for _, viaHTTP := range []bool{false, true} {
			name := "many redis"
			if viaHTTP {
				name = "many http"
				if k.name == "tideline" && b.publishHTTP(context.Background(), "bench:nobody", swarm.Data(swarm.Place{}, size)) != nil {
					continue
				}
			}
			m, err := b.run(name, p.many, false, stream{rate: manyRate, channels: channels, size: size, viaHTTP: viaHTTP})
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			f[name+" cpu"], f[name+" p99"] = m.perMillion(), millis(m.latency[0].Quantile(0.99))
		}
		return nil
	})
	return f, err
}

// idle fills one process with connections that subscribe and hear nothing.
func idle(e *environment, k kind, p plan, _ figures) (figures, error) {
	s, err := e.start(k, 1)
	defer s.End()
	if err != nil {
		return nil, err
	}
	empty, err := memory(s.nodes[0].PID())
	if err != nil {
		return nil, err
	}
	start := time.Now()
	before, err := cpu(s.nodes[0].PID())
	if err != nil {
		return nil, err
	}
	profiled := s.profile("connect", p.connect)
	b, err := gather(s, crowd{subscribers: p.idle})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	took := time.Since(start)
	after, err := cpu(s.nodes[0].PID())
	if err != nil {
		return nil, err
	}
	time.Sleep(p.settle) // part of what is measured: memory that the runtime is about to give back is not the connections'
	held, err := memory(s.nodes[0].PID())
	if err != nil {
		return nil, err
	}
	profiled()
	if err := s.heap("idle"); err != nil {
		return nil, err
	}
	if now := b.swarm.Look(); now.Live != p.idle || now.Failure != nil {
		return nil, fmt.Errorf("%s: of %d connections %d are left: %w", k.name, p.idle, now.Live, now.Failure)
	}
	n := float64(p.idle)
	return figures{"connections": n, "connects": n / took.Seconds(), "connect cpu": (after - before).Seconds() / n * 1e6,
		"memory": float64(held-empty) / n / 1024}, nil
}

// kill ends one of two processes under clients that come back.
func kill(e *environment, k kind, p plan, _ figures) (f figures, err error) {
	err = e.with(k, 2, crowd{subscribers: p.killed, reconnect: true}, func(b *bench) error {
		if k.recovers {
			b.quiet = settleMost / 2 // who comes back late has it late
		}
		back := make(chan time.Duration, 1)
		go func() {
			time.Sleep(p.kill / 3)
			if err := syscall.Kill(b.nodes[1].PID(), syscall.SIGKILL); err != nil {
				panic(err) // it is our child, and was not waited for
			}
			killed, gone := time.Now(), false
			for time.Since(killed) < settleMost {
				now := b.swarm.Look()
				gone = gone || now.Lost > 0
				if gone && now.Live == p.killed && now.Lost >= p.killed/2 {
					break
				}
				time.Sleep(2 * time.Millisecond)
			}
			back <- time.Since(killed)
		}()
		m, err := b.run("kill", p.kill, true, stream{rate: killRate, channels: []uint16{0}, size: size})
		if err != nil {
			return err
		}
		took := <-back
		if now := b.swarm.Look(); now.Live != p.killed || m.verdict.Repeated > 0 || m.verdict.Late > 0 || m.verdict.Strange > 0 {
			return fmt.Errorf("after the kill %d of %d clients are back: %+v", now.Live, p.killed, m.verdict)
		}
		if k.name == "tideline" && m.verdict.Missing > 0 {
			return fmt.Errorf("lost: %+v", m.verdict)
		}
		f = figures{"kill back": took.Seconds(), "kill lost": float64(m.verdict.Missing) / float64(m.lost)}
		return nil
	})
	return f, err
}

// stall compares the others' latency with that beside clients that have stopped reading.
func stall(e *environment, k kind, p plan, _ figures) (f figures, err error) {
	f = figures{}
	n := min(stallSubscribers, p.subscribers)
	err = e.with(k, 2, crowd{subscribers: n, receive: stallReceive}, func(b *bench) error {
		s := stream{rate: stallRate, channels: []uint16{0}, size: stallSize}
		for _, name := range []string{"warm", "stall without", "stall with"} {
			length := p.others
			if name == "warm" {
				length /= 6
			}
			if name == "stall with" {
				for i := range stallers {
					b.swarm.Stall(i)
				}
				b.expected = func(uint16) int { return n - stallers }
			}
			m, err := b.run(name, length, false, s)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			f[name] = millis(m.latency[0].Quantile(0.99))
		}
		delete(f, "warm")
		f["stall ratio"] = f["stall with"] / f["stall without"]
		return nil
	})
	return f, err
}

// hot compares the latency of quiet channels with that beside a busy one.
func hot(e *environment, k kind, p plan, _ figures) (f figures, err error) {
	f = figures{}
	quiet := make([]uint16, quietChannels)
	for i := range quiet {
		quiet[i] = uint16(i)
	}
	const quietSubs = quietChannels * quietEach
	c := crowd{subscribers: quietSubs + hotSubs,
		channel: func(i int) uint16 { return uint16(min(i/quietEach, quietChannels)) },
		class: func(i int) int {
			if i < quietSubs {
				return 0
			}
			return 1
		}}
	err = e.with(k, 2, c, func(b *bench) error {
		streams := []stream{{rate: quietRate, channels: quiet, size: size}, {rate: hotRate, channels: []uint16{quietChannels}, size: size}}
		for _, run := range []struct {
			name    string
			length  time.Duration
			streams []stream
		}{{"warm", p.others / 6, streams}, {"hot without", p.others, streams[:1]}, {"hot with", p.others, streams}} {
			m, err := b.run(run.name, run.length, false, run.streams...)
			if err != nil {
				return fmt.Errorf("%s: %w", run.name, err)
			}
			f[run.name] = millis(m.latency[0].Quantile(0.99))
		}
		delete(f, "warm")
		f["hot ratio"] = f["hot with"] / f["hot without"]
		return nil
	})
	return f, err
}

func groupOf(name string) (group, error) {
	i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
	if i < 0 {
		return group{}, fmt.Errorf("no such scenario: %q", name)
	}
	return groups[i], nil
}
