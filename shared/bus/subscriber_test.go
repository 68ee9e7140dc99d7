package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/redistest"
)

func TestSubscriber(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, o Options) {
		b := openTest(t, o)
		t.Run("hears what is published after the confirmation", func(t *testing.T) { suiteHears(t, b) })
		t.Run("subscribes many channels in few commands", func(t *testing.T) { suiteMany(t, b) })
		t.Run("only the last of subscribe and unsubscribe counts", func(t *testing.T) { suiteFlips(t, b) })
		t.Run("a rotation loses nothing", func(t *testing.T) { suiteRotation(t, b) })
		t.Run("a full inbox is told", func(t *testing.T) { suiteFullInbox(t, b) })
		t.Run("an unreadable message is told", func(t *testing.T) { suiteUnreadable(t, b) })
		t.Run("a probe comes back", func(t *testing.T) { suiteProbe(t, b) })
	})
}

func suiteHears(t *testing.T, b *Bus) {
	r := newRecorder()
	s := follow(t, b, r, nil)
	s.Subscribe("chat:a")
	s.Subscribe("chat:b")
	r.confirmedTimes(t, 1, "chat:a", "chat:b")
	p := text("chat:a", "hello\nworld")
	p.ID, p.Tags, p.Info = "id-1", map[string]string{"k": "v"}, &ClientInfo{User: "u", Client: "c"}
	res := mustPublish(t, b, p)
	r.hears(t, "chat:a", "hello\nworld")
	m := r.messages("chat:a")[0]
	if m.Kind != KindPublication || m.Epoch != res.Position.Epoch || m.Publication.Offset != 1 || m.Publication.ID != "id-1" ||
		m.Publication.Tags["k"] != "v" || m.Publication.Info.User != "u" || m.Publication.Channel != "chat:a" || m.Publication.Time == 0 {
		t.Errorf("heard %+v", m)
	}
	if n := len(r.messages("chat:b")); n != 0 {
		t.Errorf("chat:b heard %d messages of another channel", n)
	}
	s.Unsubscribe("chat:a")
	mustPublish(t, b, text("chat:b", "x"))
	r.hears(t, "chat:b", "x")
	// A duplicate and a superseded version are not heard.
	p.Channel = "chat:b"
	for range 3 {
		mustPublish(t, b, p)
	}
	mustPublish(t, b, text("chat:b", "last"))
	r.hears(t, "chat:b", "last")
	if n := len(r.messages("chat:b")); n != 3 {
		t.Errorf("chat:b heard %d messages, want x, one of the three, last", n)
	}
	s.Subscribe("chat:a")
	r.confirmedTimes(t, 2, "chat:a")
	mustPublish(t, b, text("chat:a", "again"))
	r.hears(t, "chat:a", "again")
	if n := len(r.messages("chat:a")); n != 2 {
		t.Errorf("chat:a heard %d messages, want 2", n)
	}
	r.check(t)
}

func suiteMany(t *testing.T, b *Bus) {
	r := newRecorder()
	s := follow(t, b, r, nil)
	const n = 3000
	channels := make([]string, n)
	for i := range channels {
		channels[i] = fmt.Sprintf("chat:many%d", i)
		s.Subscribe(channels[i])
	}
	r.confirmedTimes(t, 1, channels...)
	for i := 0; i < n; i += 100 {
		mustPublish(t, b, Publication{Channel: channels[i], Data: []byte("x")})
		r.hears(t, channels[i], "x")
	}
	for _, c := range channels {
		s.Unsubscribe(c)
	}
	eventually(t, func() error {
		n, err := subscriptions(b, "chat:many")
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return fmt.Errorf("%d channels are still subscribed", n)
		}
		return nil
	})
	r.check(t)
}

// subscriptions counts the channels with that beginning that the servers have subscribers for.
func subscriptions(b *Bus, prefix string) (int, error) {
	n := 0
	var mu sync.Mutex
	count := func(names []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, name := range names {
			if strings.Contains(name, ":c:"+prefix) {
				n++
			}
		}
	}
	ctx := context.Background()
	if b.cluster == nil {
		names, err := b.client.PubSubChannels(ctx, "*").Result()
		count(names)
		return n, err
	}
	addrs := strings.Join(b.dial.hosts, ",")
	for _, addr := range strings.Split(addrs, ",") {
		e := b.dial
		e.hosts = []string{addr}
		one, err := Open(ctx, Options{URL: "redis://" + addr, Stage: "x"})
		if err != nil {
			return 0, err
		}
		names, err := one.client.PubSubShardChannels(ctx, "*").Result()
		_ = one.Close()
		if err != nil {
			return 0, err
		}
		count(names)
	}
	return n, nil
}

// suiteFlips subscribes and unsubscribes from many goroutines; whatever was last wins, and what is wanted at the end is heard.
func suiteFlips(t *testing.T, b *Bus) {
	r := newRecorder()
	s := follow(t, b, r, nil)
	const channels, flips = 20, 300
	wanted := make([]bool, channels)
	var wg sync.WaitGroup
	for i := range channels {
		name := fmt.Sprintf("chat:flip%d", i)
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for range flips {
				wanted[i] = rnd.IntN(2) == 0
				if wanted[i] {
					s.Subscribe(name)
				} else {
					s.Unsubscribe(name)
				}
				if rnd.IntN(4) == 0 {
					_, _ = b.Publish(context.Background(), Publication{Channel: name, Data: []byte("noise")})
				}
			}
		})
	}
	wg.Wait()
	for i := range channels {
		name := fmt.Sprintf("chat:flip%d", i)
		if !wanted[i] {
			continue
		}
		eventually(t, func() error {
			mustPublish(t, b, Publication{Channel: name, Data: []byte("end")})
			if ms := r.messages(name); len(ms) == 0 || string(ms[len(ms)-1].Publication.Data) != "end" {
				return errors.New(name + " is wanted and not heard")
			}
			return nil
		})
	}
	// What is not wanted falls silent.
	left := 0
	for _, w := range wanted {
		if w {
			left++
		}
	}
	eventually(t, func() error {
		n, err := subscriptions(b, "chat:flip")
		if err != nil {
			t.Fatal(err)
		}
		if n != left {
			return fmt.Errorf("%d channels are subscribed, %d are wanted", n, left)
		}
		return nil
	})
	for i := range channels {
		name := fmt.Sprintf("chat:flip%d", i)
		if wanted[i] {
			continue
		}
		mustPublish(t, b, Publication{Channel: name, Data: []byte("nobody")})
		if ms := r.messages(name); len(ms) > 0 && string(ms[len(ms)-1].Publication.Data) == "nobody" {
			t.Errorf("%s was given up and is heard", name)
		}
	}
	r.check(t)
}

// suiteRotation replaces connections every few dozen milliseconds under load: every publication is heard, in order, and none is
// interrupted. miniredis does not keep the order between a connection's answers and its messages, so that the barrier proves nothing
// there: what a rotation loses is repaired from the stream, as after a reconnect.
func suiteRotation(t *testing.T, b *Bus) {
	r, c := newRecorder(), newConsumer(t, b)
	before := b.Stats().Rotated
	s := follow(t, b, both{r, c}, func(tn *tuning) { tn.rotateMin, tn.rotateMax = 20*time.Millisecond, 60*time.Millisecond })
	channels := []string{"chat:rot1", "chat:rot2", "chat:rot3"}
	for _, name := range channels {
		s.Subscribe(name)
	}
	c.ready(t, channels...)
	sent := 0
	eventually(t, func() error {
		for range 50 {
			for _, name := range channels {
				mustPublish(t, b, text(name, "%d", sent))
			}
			sent++
		}
		if n := b.Stats().Rotated - before; n < 10 {
			return fmt.Errorf("%d rotations so far", n)
		}
		return nil
	})
	t.Logf("%d rotations, %d publications on each of %d channels", b.Stats().Rotated-before, sent, len(channels))
	for _, name := range channels {
		if !b.PromotionProof() {
			eventually(t, func() error {
				c.recheck()
				if got, _ := c.state(name); len(got) < sent {
					return fmt.Errorf("%d of %d", len(got), sent)
				}
				return nil
			})
			c.wantExactly(t, name, sent)
			continue
		}
		c.wantExactly(t, name, sent)
		next := uint64(1)
		for _, m := range r.messages(name) {
			if m.Publication.Offset > next {
				t.Fatalf("%s: heard %d, next was %d: a rotation lost something", name, m.Publication.Offset, next)
			}
			next = max(next, m.Publication.Offset+1)
		}
		if next != uint64(sent+1) {
			t.Errorf("%s: heard up to %d, want %d", name, next-1, sent)
		}
		if _, interrupted := r.counts(name); interrupted > 0 {
			t.Errorf("%s was interrupted %d times by rotations", name, interrupted)
		}
	}
	r.check(t)
}

func suiteFullInbox(t *testing.T, b *Bus) {
	r := newRecorder()
	before := b.Stats().Overflowed
	s := follow(t, b, r, func(tn *tuning) { tn.messages = 10 })
	s.Subscribe("chat:full")
	r.confirmedTimes(t, 1, "chat:full")
	gate := make(chan struct{})
	r.mu.Lock()
	r.gate = gate
	r.mu.Unlock()
	for i := range 50 {
		mustPublish(t, b, Publication{Channel: "chat:full", Data: fmt.Append(nil, i)})
	}
	// All 50 have come: one is being handled and 9 wait behind it, 10 are in the inbox, the rest was dropped.
	eventually(t, func() error {
		if n := b.Stats().Overflowed - before; n < 50-20 {
			return fmt.Errorf("%d were dropped", n)
		}
		return nil
	})
	r.mu.Lock()
	r.gate = nil
	r.mu.Unlock()
	close(gate)
	r.confirmedTimes(t, 2, "chat:full")
	if _, interrupted := r.counts("chat:full"); interrupted == 0 {
		t.Error("messages were dropped and the channel was not interrupted")
	}
	if heard := len(r.messages("chat:full")); heard > 20 {
		t.Errorf("heard %d of 50 with an inbox of 10", heard)
	}
	// What is still on its way may fill the inbox again; then it is told again.
	eventually(t, func() error {
		mustPublish(t, b, Publication{Channel: "chat:full", Data: []byte("end")})
		if ms := r.messages("chat:full"); string(ms[len(ms)-1].Publication.Data) != "end" {
			return errors.New("nothing is heard after the overflow")
		}
		return nil
	})
	r.check(t)
}

func suiteUnreadable(t *testing.T, b *Bus) {
	r := newRecorder()
	s := follow(t, b, r, nil)
	s.Subscribe("chat:odd")
	r.confirmedTimes(t, 1, "chat:odd")
	before := b.Stats().Unreadable
	publish := func(payload string) {
		t.Helper()
		var err error
		if b.cluster != nil {
			err = b.client.SPublish(t.Context(), b.key(keyChannel, "chat:odd"), payload).Err()
		} else {
			err = b.client.Publish(t.Context(), b.key(keyChannel, "chat:odd"), payload).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	publish("7 p e.0 1\n{}\nof a later version")
	r.confirmedTimes(t, 2, "chat:odd")
	publish("nonsense")
	r.confirmedTimes(t, 3, "chat:odd")
	publish("1 p e.0 9\n{\"later\":{\"field\":1}}\nnew field")
	r.hears(t, "chat:odd", "new field")
	if n := b.Stats().Unreadable - before; n != 2 {
		t.Errorf("%d unreadable messages counted, want 2", n)
	}
	r.check(t)
}

func suiteProbe(t *testing.T, b *Bus) {
	r := newRecorder()
	s := follow(t, b, r, func(tn *tuning) { tn.probeEvery = 20 * time.Millisecond })
	if h := s.Health(); h.Rebuilt != 0 {
		t.Errorf("health at the start: %+v", h)
	}
	s.Subscribe("chat:probe")
	r.confirmedTimes(t, 1, "chat:probe")
	eventually(t, func() error {
		for _, sh := range s.shards {
			if sh.probed.Load() == 0 {
				return errors.New("no probe has come back")
			}
		}
		if h := s.Health(); !h.Connected || h.ProbeAge > time.Second || h.Rebuilt != 0 {
			return fmt.Errorf("health: %+v", h)
		}
		return nil
	})
	if ms := r.messages("chat:probe"); len(ms) != 0 {
		t.Errorf("probes are heard: %d messages", len(ms))
	}
}

// Rule 11 to 13, one fault each: after it everything that was published is delivered once and in order, without a resync.
func TestSubscriberSurvives(t *testing.T) {
	t.Parallel()
	faults := map[string]func(t *testing.T, s *redistest.Server, p *redistest.Proxy){
		"connections cut by a proxy": func(t *testing.T, _ *redistest.Server, p *redistest.Proxy) { p.Cut() },
		"client kill":                func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) { s.Do("CLIENT", "KILL", "TYPE", "pubsub") },
		"connections refused for a while": func(t *testing.T, _ *redistest.Server, p *redistest.Proxy) {
			p.Refuse(true)
			p.Cut()
			time.AfterFunc(300*time.Millisecond, func() { p.Refuse(false) })
		},
		"a silent connection": func(t *testing.T, _ *redistest.Server, p *redistest.Proxy) { p.Stall() },
		"the server pauses": func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) {
			s.Pause()
			time.AfterFunc(3*time.Second, s.Resume)
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			publisher := openTest(t, Options{URL: server.URL()})
			b := openTest(t, Options{URL: proxy.URL()})
			c := newConsumer(t, publisher)
			s := follow(t, b, c, func(tn *tuning) {
				tn.probeEvery, tn.probeTimeout, tn.confirm, tn.stable = 200*time.Millisecond, 200*time.Millisecond, 500*time.Millisecond, time.Millisecond
			})
			s.Subscribe("chat:fault")
			c.ready(t, "chat:fault")
			const n = 400
			for i := range n {
				mustPublish(t, publisher, text("chat:fault", "%d", i))
				if i == n/4 {
					fault(t, server, proxy)
				}
				if !sleep(t.Context(), time.Millisecond) {
					t.Fatal("test ended")
				}
			}
			c.wantExactly(t, "chat:fault", n)
			t.Logf("%d publications delivered, %d of them from the stream, %d rebuilds", n, c.repaired, s.Health().Rebuilt)
		})
	}
}

// Rule 11: the server accepts a SUBSCRIBE and does not confirm it.
func TestUnconfirmedSubscribeRebuilds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	publisher := openTest(t, Options{URL: server.URL()})
	b := openTest(t, Options{URL: proxy.URL()})
	r := newRecorder()
	s := follow(t, b, r, func(tn *tuning) { tn.confirm, tn.probeEvery = limit.SubscribeConfirm, time.Hour })
	s.Subscribe("chat:first")
	r.confirmedTimes(t, 1, "chat:first")
	proxy.PauseAnswers()
	s.Subscribe("chat:second")
	eventually(t, func() error {
		if b.Stats().Unconfirmed == 0 {
			return errors.New("nobody has noticed")
		}
		if _, interrupted := r.counts("chat:first"); interrupted != 1 { // counted first, and told then
			return fmt.Errorf("the connection was given up and its other channel was interrupted %d times", interrupted)
		}
		return nil
	})
	if confirmed, _ := r.counts("chat:second"); confirmed != 0 {
		t.Error("confirmed without the server")
	}
	// Given up while the rebuild is on: it must not come back.
	s.Unsubscribe("chat:first")
	proxy.Resume()
	r.confirmedTimes(t, 1, "chat:second")
	mustPublish(t, publisher, text("chat:first", "nobody"))
	mustPublish(t, publisher, text("chat:second", "x"))
	r.hears(t, "chat:second", "x")
	if confirmed, _ := r.counts("chat:first"); confirmed != 1 || len(r.messages("chat:first")) != 0 {
		t.Errorf("chat:first came back: confirmed %d times, %d messages", confirmed, len(r.messages("chat:first")))
	}
	r.check(t)
}

// Rule 13: publications no longer reach the connection, although it is open and answers.
func TestLostProbeRebuilds(t *testing.T) {
	t.Parallel()
	old, other := redistest.Start(t), redistest.Start(t)
	proxy := redistest.StartProxy(t, old.Addr())
	b := openTest(t, Options{URL: proxy.URL()})
	r := newRecorder()
	s := follow(t, b, r, func(tn *tuning) { tn.probeEvery, tn.probeTimeout = 50*time.Millisecond, limit.ProbeTimeout })
	s.Subscribe("chat:isolated")
	r.confirmedTimes(t, 1, "chat:isolated")
	// The address leads to another server now; command connections go there, the subscriber's stays with the old one and is green.
	proxy.Target(other.Addr())
	old.Do("CLIENT", "KILL", "TYPE", "normal")
	r.confirmedTimes(t, 2, "chat:isolated")
	eventually(t, func() error { // a machine that stands still may have cost a connection before: then there is one more
		mustPublish(t, b, text("chat:isolated", "x"))
		if len(r.messages("chat:isolated")) == 0 {
			return errors.New("not heard")
		}
		return nil
	})
	if b.Stats().ProbesLost == 0 || s.Health().Rebuilt == 0 {
		t.Errorf("probes lost %d, rebuilt %d", b.Stats().ProbesLost, s.Health().Rebuilt)
	}
	r.check(t)
}

// Redis away shows in Health, and passes.
func TestHealthWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := openTest(t, Options{URL: server.URL()})
	s := follow(t, b, newRecorder(), func(tn *tuning) { tn.probeEvery = 20 * time.Millisecond })
	connected := func(want bool) {
		t.Helper()
		eventually(t, func() error {
			if h := s.Health(); h.Connected != want {
				return fmt.Errorf("health %+v, want connected %v", h, want)
			}
			return nil
		})
	}
	connected(true)
	server.Kill()
	connected(false)
	age := s.Health().ProbeAge
	eventually(t, func() error {
		if s.Health().ProbeAge <= age {
			return errors.New("the last probe does not grow older")
		}
		return nil
	})
	server.Restart()
	connected(true)
	if n := s.Health().Rebuilt; n != 1 {
		t.Errorf("one connection was lost and %d count as rebuilt", n)
	}
}

func TestRunTwice(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	s := follow(t, b, newRecorder(), nil)
	eventually(t, func() error {
		if !s.Health().Connected {
			return errors.New("not running yet")
		}
		return nil
	})
	if err := s.Run(t.Context()); err == nil {
		t.Error("a second Run must be refused")
	}
}
