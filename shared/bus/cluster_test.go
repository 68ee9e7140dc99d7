package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/redistest"
)

// A slot moves to another shard, key by key, while its channel is published to and followed. No publication fails (rule 7: TRYAGAIN
// is waited out), and the consumer hears every one in order or is told.
func TestSlotMigrationUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	publisher := openTest(t, Options{URL: cluster.URL()})
	b := openTest(t, Options{URL: cluster.URL()})
	const channel, other = "chat:moving", "chat:staying"
	slot := cluster.Slot(b.key(keyMeta, channel))
	if slot == cluster.Slot(b.key(keyMeta, other)) {
		t.Fatal("the two channels must be of different partitions")
	}
	c := newConsumer(t, b)
	s := follow(t, b, c, func(tn *tuning) {
		tn.probeEvery, tn.probeTimeout, tn.confirm, tn.stable = 200*time.Millisecond, 200*time.Millisecond, limit.SubscribeConfirm, time.Millisecond
	})
	s.Subscribe(channel)
	s.Subscribe(other)
	c.ready(t, channel, other)

	ctx, stop := context.WithCancel(t.Context())
	sent := map[string]*int{channel: new(int), other: new(int)}
	var wg sync.WaitGroup
	for name, n := range sent {
		wg.Go(func() {
			for ; ctx.Err() == nil; *n++ {
				// WithoutCancel: the last one is not cut off half way.
				if _, err := publisher.Publish(context.WithoutCancel(ctx), text(name, "%d", *n)); err != nil {
					t.Errorf("publication %d on %s: %v", *n, name, err)
					return
				}
				sleep(ctx, 2*time.Millisecond)
			}
		})
	}
	heard := func(name string, n int) {
		eventually(t, func() error {
			if got, _ := c.state(name); len(got) < n {
				return fmt.Errorf("%d heard on %s", len(got), name)
			}
			return nil
		})
	}
	heard(channel, 50)
	to := (cluster.Owner(slot) + 1) % 3
	m := cluster.Migrate(slot, to)
	m.Move(b.key(keyMeta, channel))
	eventually(t, func() error { // from now on scripts touch keys on both sides
		if publisher.Stats().Retries == 0 {
			return errors.New("no TRYAGAIN was met")
		}
		return nil
	})
	for _, key := range m.Keys(100) {
		m.Move(key)
		sleep(ctx, 30*time.Millisecond)
	}
	m.Finish()
	before, _ := c.state(channel)
	heard(channel, len(before)+50)
	stop()
	wg.Wait()
	retries := publisher.Stats().Retries
	c.wantExactly(t, other, *sent[other])
	// The other shard has another replication id, so the epoch changed: the consumer was told, and lost nothing without being told.
	eventually(t, func() error {
		got, told := c.state(channel)
		last := -1
		for _, data := range got {
			n, _ := strconv.Atoi(data)
			if n <= last {
				t.Fatalf("heard %d after %d", n, last)
			}
			if n > last+1 && told == 0 {
				t.Fatalf("heard %d after %d and was not told", n, last)
			}
			last = n
		}
		if last != *sent[channel]-1 {
			return fmt.Errorf("last heard %d of %d", last, *sent[channel])
		}
		return nil
	})
	got, told := c.state(channel)
	t.Logf("moving: %d sent, %d heard, told %d times; staying: %d; publisher retries %d, subscriber rebuilds %d",
		*sent[channel], len(got), told, *sent[other], retries, s.Health().Rebuilt)
	if told == 0 && len(got) != *sent[channel] {
		t.Error("publications are missing and the consumer was not told")
	}
}

// Rule 7: a slot that stays half way for longer than the budget.
func TestTryAgainEnds(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	b := openTest(t, Options{URL: cluster.URL()})
	mustPublish(t, b, text("chat:stuck", "x"))
	slot := cluster.Slot(b.key(keyMeta, "chat:stuck"))
	m := cluster.Migrate(slot, (cluster.Owner(slot)+1)%3)
	m.Move(b.key(keyMeta, "chat:stuck"))
	started := time.Now()
	_, err := b.Publish(t.Context(), text("chat:stuck", "x"))
	took := time.Since(started)
	wantErr(t, err, ErrUnavailable)
	if took < limit.TryAgainBudget || err == nil || !strings.Contains(err.Error(), "TRYAGAIN") {
		t.Errorf("gave up after %v, want %v for the slot: %v", took, limit.TryAgainBudget, err)
	}
	m.Finish()
	if res := mustPublish(t, b, text("chat:stuck", "x")); res.Position.Offset != 2 {
		t.Errorf("after the move: %+v", res)
	}
}

// Rule 11: SSUBSCRIBE at a shard that no longer has the slot is answered with MOVED, which go-redis does not report as a failure.
func TestSubscribeAfterASlotMoved(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	b := openTest(t, Options{URL: cluster.URL()})
	mustPublish(t, b, text("chat:moved", "the client knows the slots now"))
	slot := cluster.Slot(b.key(keyMeta, "chat:moved"))
	cluster.Migrate(slot, (cluster.Owner(slot)+1)%3).Finish()
	r := newRecorder()
	s := follow(t, b, r, func(tn *tuning) { tn.confirm, tn.probeEvery = limit.SubscribeConfirm, time.Hour }) // no probe helps
	s.Subscribe("chat:moved")
	r.confirmedTimes(t, 1, "chat:moved")
	mustPublish(t, b, text("chat:moved", "heard"))
	r.hears(t, "chat:moved", "heard")
	r.check(t)
}

// Rule 11: a slot moves away under a subscription, and the server says so with an sunsubscribe that nobody asked for. No probe helps here.
func TestSlotMovesUnderASubscription(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	b := openTest(t, Options{URL: cluster.URL()})
	r := newRecorder()
	s := follow(t, b, r, func(tn *tuning) {
		tn.probeEvery, tn.confirm, tn.stable = time.Hour, limit.SubscribeConfirm, time.Millisecond
	})
	s.Subscribe("chat:leaves")
	r.confirmedTimes(t, 1, "chat:leaves")
	slot := cluster.Slot(b.key(keyMeta, "chat:leaves"))
	cluster.Migrate(slot, (cluster.Owner(slot)+1)%3).Finish()
	r.confirmedTimes(t, 2, "chat:leaves")
	mustPublish(t, b, text("chat:leaves", "heard"))
	r.hears(t, "chat:leaves", "heard")
	r.check(t)
}

// Cluster mode: a partition that nothing is wanted of gives its connection up, and takes one again.
func TestIdlePartitionRests(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	b := openTest(t, Options{URL: cluster.URL()})
	r := newRecorder()
	s := follow(t, b, r, func(tn *tuning) { tn.idle = 50 * time.Millisecond })
	for round := 1; round <= 2; round++ {
		s.Subscribe("chat:idle")
		r.confirmedTimes(t, round, "chat:idle")
		mustPublish(t, b, text("chat:idle", "round %d", round))
		r.hears(t, "chat:idle", fmt.Sprintf("round %d", round))
		s.Unsubscribe("chat:idle")
		eventually(t, func() error {
			for i, shard := range cluster.Shards {
				if names := shard.Do("PUBSUB", "SHARDCHANNELS").([]any); len(names) > 0 {
					return fmt.Errorf("shard %d still serves %v", i, names)
				}
			}
			return nil
		})
		eventually(t, func() error { // the server knows of the closed connection before the shard has noted that it rests
			if h := s.Health(); !h.Connected {
				return fmt.Errorf("resting is healthy: %+v", h)
			}
			return nil
		})
		if h := s.Health(); h.Rebuilt != 0 {
			t.Errorf("resting is no loss: %+v", h)
		}
	}
	r.check(t)
}
