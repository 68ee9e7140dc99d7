package bus

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"tideline/test/redistest"
)

// scene is a primary with a replica behind an address that can be pointed at either, a publisher, and a consumer that follows.
type scene struct {
	a, b  *redistest.Server
	proxy *redistest.Proxy
	bus   *Bus
	sub   *Subscriber
	c     *consumer
}

const sceneChannel = "chat:epoch"

func newScene(t *testing.T, settings ...string) *scene {
	t.Helper()
	s := &scene{}
	s.a, s.b = redistest.StartPair(t, settings...)
	s.proxy = redistest.StartProxy(t, s.a.Addr())
	s.bus = openTest(t, Options{URL: s.proxy.URL()})
	s.c = newConsumer(t, s.bus)
	s.sub = follow(t, s.bus, s.c, func(tn *tuning) { tn.stable = time.Millisecond })
	s.sub.Subscribe(sceneChannel)
	s.c.ready(t, sceneChannel)
	return s
}

// publish publishes n and waits until the consumer has them.
func (s *scene) publish(t *testing.T, phase string, n int) Position {
	t.Helper()
	var pos Position
	for i := range n {
		pos = mustPublish(t, s.bus, text(sceneChannel, "%s%d", phase, i)).Position
	}
	eventually(t, func() error {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		if s.c.pos[sceneChannel] != pos {
			return fmt.Errorf("consumer at %+v, want %+v", s.c.pos[sceneChannel], pos)
		}
		return nil
	})
	return pos
}

// failOver points the address at another server and ends the old connections.
func (s *scene) failOver(to *redistest.Server) {
	s.proxy.Target(to.Addr())
	s.proxy.Cut()
}

func (s *scene) wantTold(t *testing.T, n int) {
	t.Helper()
	eventually(t, func() error {
		if _, told := s.c.state(sceneChannel); told != n {
			return fmt.Errorf("told %d times, want %d", told, n)
		}
		return nil
	})
}

// Rule 1, the reused-offset trap: a replica that lagged is promoted, and the new primary hands out again the offsets that the old one
// had given to other publications. With fewer, as many, or more of them the consumer must be told.
func TestPromotionOfALaggingReplica(t *testing.T) {
	t.Parallel()
	const lost = 5
	for _, after := range []int{lost - 1, lost, lost + 1} {
		t.Run(strconv.Itoa(after)+" new for 5 lost", func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.publish(t, "both", 10)
			eventually(t, func() error {
				if n := s.b.Do("HGET", s.bus.key(keyMeta, sceneChannel), "o"); n != "10" {
					return fmt.Errorf("replica at %v", n)
				}
				return nil
			})
			s.b.Do("REPLICAOF", "127.0.0.1", "1") // replication has stopped, nobody has noticed
			old := s.publish(t, "lost", lost)
			s.a.Kill()
			s.b.Promote()
			s.failOver(s.b)
			// The new primary is published to before the consumer is back, by another connection.
			direct := openTest(t, Options{URL: s.b.URL()})
			var now Position
			for i := range after {
				now = mustPublish(t, direct, text(sceneChannel, "new%d", i)).Position
			}
			if now.Epoch == old.Epoch {
				t.Fatalf("the epoch is %s as before, with offset %d of other data", now.Epoch, now.Offset)
			}
			if now.Offset != uint64(10+after) {
				t.Errorf("new primary is at %d, want %d: this test must reuse offsets", now.Offset, 10+after)
			}
			_, _, err := direct.Since(t.Context(), sceneChannel, old)
			wantErr(t, err, ErrUnrecoverable)
			s.wantTold(t, 1)
			s.publish(t, "then", 3)
			s.wantTold(t, 1)
		})
	}
}

func TestFailoverAndFailbackWithoutRestart(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.publish(t, "a", 3)
	waitReplicated(t, s.b, s.bus, 3)
	s.b.Promote()
	s.a.ReplicaOf(s.b)
	s.failOver(s.b)
	s.wantTold(t, 1)
	second := s.publish(t, "b", 3)
	waitReplicated(t, s.a, s.bus, 6)
	s.a.Promote()
	s.b.ReplicaOf(s.a)
	s.failOver(s.a)
	s.wantTold(t, 2)
	third := s.publish(t, "c", 3)
	if first.Epoch == second.Epoch || second.Epoch == third.Epoch || first.Epoch == third.Epoch {
		t.Errorf("three reigns need three epochs: %s, %s, %s", first.Epoch, second.Epoch, third.Epoch)
	}
	if third.Offset != 9 {
		t.Errorf("offset %d: nothing was lost, so it should be 9", third.Offset)
	}
}

func waitReplicated(t *testing.T, replica *redistest.Server, b *Bus, offset int) {
	t.Helper()
	eventually(t, func() error {
		if n := replica.Do("HGET", b.key(keyMeta, sceneChannel), "o"); n != strconv.Itoa(offset) {
			return fmt.Errorf("replica at %v, want %d", n, offset)
		}
		return nil
	})
}

func TestReplacedReplicaKeepsTheEpoch(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	before := s.publish(t, "a", 2)
	s.b.Kill()
	eventually(t, func() error {
		if n := s.a.Info("replication", "connected_slaves"); n != "0" {
			return fmt.Errorf("%s replicas", n)
		}
		return nil
	})
	s.publish(t, "without", 2)
	other := redistest.Start(t)
	other.ReplicaOf(s.a)
	after := s.publish(t, "b", 2)
	if after != (Position{before.Epoch, 6}) {
		t.Errorf("with another replica: %+v, want epoch %s", after, before.Epoch)
	}
	s.wantTold(t, 0)
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings []string
		kill     bool
		kept     uint64 // offset after the restart
	}{
		"without persistence":              {nil, false, 0},
		"with a snapshot":                  {[]string{"--save", "3600 1000000"}, false, 4},
		"with an append-only file, killed": {[]string{"--appendonly", "yes", "--appendfsync", "always"}, true, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, c.settings...)
			b := openTest(t, Options{URL: server.URL()})
			cons := newConsumer(t, b)
			s := &scene{a: server, bus: b, c: cons}
			s.sub = follow(t, b, cons, func(tn *tuning) { tn.stable = time.Millisecond })
			s.sub.Subscribe(sceneChannel)
			cons.ready(t, sceneChannel)
			before := s.publish(t, "a", 4)
			if c.kill {
				server.Kill()
			}
			server.Restart()
			// What was acknowledged may not have reached the disk, so a restart is always a new epoch; what is there is kept.
			s.wantTold(t, 1)
			after := s.publish(t, "b", 1)
			if after.Epoch == before.Epoch || after.Offset != c.kept+1 {
				t.Errorf("before %+v, after %+v: want another epoch and offset %d", before, after, c.kept+1)
			}
		})
	}
}

func TestFlush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := openTest(t, Options{URL: server.URL()})
	c := newConsumer(t, b)
	s := &scene{a: server, bus: b, c: c, sub: follow(t, b, c, nil)}
	s.sub.Subscribe(sceneChannel)
	c.ready(t, sceneChannel)
	for _, after := range []int{3, 5, 8} { // fewer, as many, more than before the flush
		_, told := c.state(sceneChannel)
		s.publish(t, "a", 5)
		server.Do("FLUSHALL")
		s.publish(t, "b", after)
		s.wantTold(t, told+1)
		server.Do("FLUSHALL")
		s.publish(t, "c", 1)
	}
}

// A position check alone, with nothing published, also finds out.
func TestPositionsTellAfterFlush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := openTest(t, Options{URL: server.URL()})
	c := newConsumer(t, b)
	sub := follow(t, b, c, nil)
	sub.Subscribe(sceneChannel)
	c.ready(t, sceneChannel)
	old := mustPublish(t, b, text(sceneChannel, "x")).Position
	server.Do("FLUSHALL")
	tops, errs := b.Positions(t.Context(), []string{sceneChannel})
	if errs[0] != nil || tops[0].Epoch == old.Epoch || tops[0].Offset != 0 {
		t.Errorf("after FLUSHALL: %+v, %v", tops[0], errs[0])
	}
	c.recheck()
	eventually(t, func() error {
		if _, told := c.state(sceneChannel); told == 0 {
			return fmt.Errorf("not told")
		}
		return nil
	})
}

func TestPromotionProof(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "blind", "on", ">pw", "~*", "&*", "+@all", "-info")
	open := openTest(t, Options{URL: server.URL()})
	blind := openTest(t, Options{URL: "redis://blind:pw@" + server.Addr()})
	if !open.PromotionProof() || !blind.PromotionProof() {
		t.Error("nothing is known before the first position: true")
	}
	mustPublish(t, open, text("chat:proof", "x"))
	res := mustPublish(t, blind, text("chat:proof", "x"))
	if !open.PromotionProof() {
		t.Error("a server that answers INFO proves promotions")
	}
	if blind.PromotionProof() {
		t.Error("a server that refuses INFO must be shown")
	}
	if res.Position.Offset != 2 {
		t.Errorf("publishing works without INFO: %+v", res)
	}
}
