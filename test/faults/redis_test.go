package faults

import (
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/fleet"
	"tideline/test/redistest"
)

// A Redis that keeps nothing starts empty: offsets begin anew, and everybody has to be told.
func TestRedisRestartedWithoutPersistence(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	redisWhileLoaded(t, r, func(*scene) { r.Kill(); r.Restart() }).wantTold(t, true)
}

// With an append-only file nothing that was acknowledged is gone; the replication id is a new one all the same, which announces more
// than had to be.
func TestRedisRestartedWithPersistence(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	redisWhileLoaded(t, r, func(*scene) { r.Kill(); r.Restart() }).wantTold(t, true)
}

// Ten seconds without an answer, every connection open: publishers' attempts are repeated, subscribers find the gap and close it.
func TestRedisPausedForTenSeconds(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	redisWhileLoaded(t, r, func(*scene) {
		r.Pause()
		pass(t, 10*time.Second)
		r.Resume()
	}).wantTold(t, false)
}

// Connections cut again and again, those of publishers and subscribers alike, on the way there and on the way back.
func TestRedisConnectionsCut(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	p := redistest.StartProxy(t, r.Addr())
	s := newScene(t, p.URL())
	stop := s.load(t)
	cut := 0
	for range 5 {
		s.progress(t, 10)
		cut += p.Cut()
		s.progress(t, 5)
		p.PauseAnswers() // commands arrive, answers don't: whoever asks again must not publish twice
		pass(t, 200*time.Millisecond)
		cut += p.Cut()
		p.Resume()
	}
	s.progress(t, 20)
	t.Logf("%d connections to Redis were cut", cut)
	s.verdict(t, stop).wantTold(t, false)
}

// deafFor is how long a subscription may hear nothing without noticing: two intervals of the probe, because the first one is published on a
// stalled connection itself and proves nothing, and some for the rebuild. It is under limit.PositionCheckEvery: it is the probe that notices.
const deafFor = 2*(limit.ProbeEvery+limit.ProbeTimeout) + 6*time.Second

// Connections that stay open and carry nothing, as behind a firewall that forgot them: only the probe notices, because nothing fails.
func TestRedisConnectionsStalled(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	p := redistest.StartProxy(t, r.Addr())
	s := newScene(t, p.URL())
	stop := s.load(t)
	s.progress(t, 20)
	pauses := fleet.WatchPauses(t)
	stalled := time.Now()
	p.Stall()
	s.progress(t, 20)
	stop()
	s.caughtUp(t)
	took := time.Since(stalled)
	t.Logf("everybody had caught up %v after the connections went silent", took.Round(100*time.Millisecond))
	if pause := pauses.Since(stalled); took > deafFor+pause {
		t.Errorf("everybody had caught up after %v, want at most %v; the machine paused for %v", took, deafFor, pause)
	}
	s.verdict(t, stop).wantTold(t, false)
}

func TestRedisFlushed(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	redisWhileLoaded(t, r, func(*scene) { r.Do("FLUSHALL") }).wantTold(t, true)
}

// A flush before which there were fewer publications than come after it: the new epoch's offsets reach those where subscribers stand, and
// continue them by number. Nothing else happens that would make a node look.
func TestRedisFlushedAndOffsetsReachedAgain(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	s := newScene(t, r.URL())
	for _, p := range s.publishers {
		p.burst(t, 5)
	}
	s.caughtUp(t)
	r.Do("FLUSHALL")
	for _, p := range s.publishers {
		p.burst(t, 10)
	}
	s.verdict(t, func() {}).wantTold(t, true)
}

// Each key of a channel deleted alone. Without its position a channel begins anew; without its stream the position stays, and only who
// needs what was in it is told.
func TestRedisKeyDeleted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, kind string
		told       bool // everybody, on each channel
	}{{"position", "m", true}, {"recent ids", "d", true}, {"expiry of ids", "x", true}, {"stream", "s", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := redistest.Start(t)
			redisWhileLoaded(t, r, func(s *scene) {
				keys, ok := r.Do("KEYS", "tl:"+stage+":{*}:"+c.kind+":chat:*").([]any)
				if !ok || len(keys) != sceneRooms {
					t.Fatalf("keys of kind %s: %v", c.kind, keys)
				}
				for _, k := range keys {
					r.Do("DEL", k.(string))
				}
			}).wantTold(t, c.told)
		})
	}
}

// A client that was away when the stream was deleted can't be given what it missed, and is told; those who were there miss nothing.
func TestStreamDeletedWhileClientsAreAway(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	s := newScene(t, r.URL())
	away := newClient(t, "away", at(s.nodes[0]), s.publishers[0].channel).start(t)
	s.all = append(s.all, away)
	awaitSubscribed(t, s.all)
	s.publishers[0].burst(t, 10)
	s.caughtUp(t)
	// The node forgets the channel's ring when nobody is left, so it is the client's node that has to be another one.
	third := startNode(t, "third", r.URL())
	moveTo(at(third), away)
	s.publishers[0].burst(t, 10)
	keys, _ := r.Do("KEYS", "tl:"+stage+":{*}:s:"+s.publishers[0].channel).([]any)
	if len(keys) != 1 {
		t.Fatalf("streams: %v", keys)
	}
	r.Do("DEL", keys[0].(string))
	s.publishers[0].burst(t, 10)
	away.letGo()
	awaitSubscribed(t, s.all)
	s.publishers[0].burst(t, 10)
	c := verdict(t, s.all, s.publishers[0])
	if c.told != 1 || c.skipped != 20 {
		t.Errorf("%d told of %d publications, want the one that was away, of 20", c.told, c.skipped)
	}
}
