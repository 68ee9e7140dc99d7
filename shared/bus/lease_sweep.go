package bus

// The lease's housekeeping: the audit, which makes Redis agree with what this node holds, and the reaper, which removes what dead
// nodes held. Both work in batches and are bounded by time; what one pass leaves, the next does.

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// sweepBudget bounds one audit and the reaping of one generation.
const sweepBudget = time.Minute

// sweepLoop audits and reaps when it is woken, and audits at intervals, until ctx ends.
func (l *Lease) sweepLoop(ctx context.Context) {
	audit := time.NewTimer(l.auditPause())
	defer audit.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-l.reapNow:
			err = l.reapDead(ctx)
		case <-l.auditNow:
			err = l.auditUntilDone(ctx)
		case <-audit.C:
			audit.Reset(l.auditPause())
			if err = l.audit(ctx); err == nil {
				err = l.findOrphans(ctx)
			}
		}
		if err != nil && ctx.Err() == nil {
			l.bus.log.Warn("presence housekeeping failed", "node", l.o.Node, "boot", l.Boot(), "error", err)
		}
	}
}

// auditPause is jittered by a tenth either way, so that nodes that started together don't audit together.
func (l *Lease) auditPause() time.Duration {
	return l.o.Audit - l.o.Audit/10 + rand.N(l.o.Audit/5+1)
}

// auditUntilDone repeats a failed audit at the pace of heartbeats: after a lost lease the members are missing until it succeeds.
func (l *Lease) auditUntilDone(ctx context.Context) error {
	err := l.audit(ctx)
	if err != nil && sleep(ctx, jitter(l.o.Heartbeat)) {
		wake(l.auditNow)
	}
	return err
}

// audit enters every member that the node lists and removes what Redis has under this generation and the node doesn't list.
//
// The node lists a member before it calls Enter and until it calls Leave. So what is missing from the second listing has been left by
// now, perhaps before the audit entered it again; and what is back in the third was entered again meanwhile.
func (l *Lease) audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepBudget)
	defer cancel()
	g := l.generation()
	indexed, err := l.bus.eachPartition(ctx, "audit members", allPartitions(), func(pipe redis.Pipeliner, prefix string) *redis.StringSliceCmd {
		return pipe.SMembers(ctx, prefix+keyIndex+g.String())
	})
	if err != nil {
		return err
	}
	first := l.list()
	if err := l.enterAll(ctx, g, first); err != nil {
		return err
	}
	second := l.indexes()
	extra := make(map[string]entry)
	for index, e := range first {
		extra[index] = e
	}
	for _, members := range indexed {
		for _, index := range members {
			if e, ok := parseIndex(index); ok {
				extra[index] = e
			}
		}
	}
	for index := range second {
		delete(extra, index)
	}
	if len(extra) == 0 {
		return nil
	}
	for p, members := range byPartition(maps.Values(extra)) {
		if _, err := l.bus.remove(ctx, g, "process", "", p, members); err != nil {
			return err
		}
	}
	again := l.list()
	for index := range again {
		if _, removed := extra[index]; !removed {
			delete(again, index)
		}
	}
	return l.enterAll(ctx, g, again)
}

// list is LeaseOptions.Members, checked and encoded, by index. What can't be encoded was refused by Enter as well.
func (l *Lease) list() map[string]entry {
	entries := make(map[string]entry)
	for channel, members := range l.o.Members() {
		announce := l.o.Announces(channel)
		for _, info := range members {
			if e, err := newEntry(channel, info, announce); err == nil {
				entries[e.index()] = e
			}
		}
	}
	return entries
}

// indexes is list without the entries.
func (l *Lease) indexes() map[string]struct{} {
	indexes := make(map[string]struct{})
	for channel, members := range l.o.Members() {
		for _, info := range members {
			indexes[entry{channel: channel, client: info.Client}.index()] = struct{}{}
		}
	}
	return indexes
}

func (l *Lease) enterAll(ctx context.Context, g generation, entries map[string]entry) error {
	for p, members := range byPartition(maps.Values(entries)) {
		if _, err := l.bus.enter(ctx, g, "keep", p, members); err != nil {
			return err
		}
	}
	return nil
}

// parseIndex reads an element of a generation's index.
func parseIndex(index string) (entry, bool) {
	channel, client, ok := strings.Cut(index, " ")
	return entry{channel: channel, client: client}, ok
}

// findOrphans notes generations that have members and no lease that this node knows, so that they are judged like any other: one
// whose registry entry was lost, and one that was reaped and whose last calls reached Redis only afterwards.
func (l *Lease) findOrphans(ctx context.Context) error {
	found, err := l.bus.eachPartition(ctx, "find orphans", allPartitions(), func(pipe redis.Pipeliner, prefix string) *redis.StringSliceCmd {
		return pipe.SMembers(ctx, prefix+keyGenerations)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, boots := range found {
		for _, boot := range boots {
			if _, known := l.fleet[boot]; !known && boot != l.current.String() {
				l.fleet[boot] = peer{until: time.Now().Add(l.o.TTL)}
			}
		}
	}
	return nil
}

// reapDead removes what dead generations held. Survivors do this at the same time, each in an order of its own; the scripts see to it
// that every leave is sent once.
func (l *Lease) reapDead(ctx context.Context) error {
	for {
		l.mu.Lock()
		dead := l.deadLocked(time.Now())
		l.mu.Unlock()
		if len(dead) == 0 {
			return nil
		}
		boot := dead[0]
		g, ok := parseGeneration(boot)
		if ok {
			started := time.Now()
			removed, err := l.bus.reap(ctx, g)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if removed == 0 {
				level = slog.LevelDebug // another survivor was first, or its node had given it up
			}
			l.bus.log.Log(ctx, level, "dead generation reaped", "node", l.o.Node, "dead", boot, "members", removed, "took", time.Since(started))
		}
		if err := l.bus.forget(ctx, boot); err != nil {
			return err
		}
		l.mu.Lock()
		if !l.fleet[boot].alive {
			delete(l.fleet, boot)
		}
		l.mu.Unlock()
	}
}

// reap removes every presence entry of a generation and answers how many it removed.
func (b *Bus) reap(ctx context.Context, g generation) (removed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepBudget)
	defer cancel()
	for {
		// Random elements, so that survivors who reap the same generation seldom try the same ones.
		found, err := b.eachPartition(ctx, "reap members", allPartitions(), func(pipe redis.Pipeliner, prefix string) *redis.StringSliceCmd {
			return pipe.SRandMemberN(ctx, prefix+keyIndex+g.String(), membersPerScript)
		})
		if err != nil || len(found) == 0 {
			return removed, err
		}
		for p, indexes := range found { // a map's order is random
			members := make([]entry, 0, len(indexes))
			for _, index := range indexes {
				if e, ok := parseIndex(index); ok {
					members = append(members, e)
				}
			}
			n, err := b.remove(ctx, g, "boot", "", p, members)
			removed += n
			if err != nil {
				return removed, err
			}
		}
	}
}

// forget takes a generation off the registry.
func (b *Bus) forget(ctx context.Context, boot string) error {
	return b.retry(ctx, "forget "+boot, func(ctx context.Context) error {
		return b.client.SRem(ctx, b.fleetKey(fleetAll), boot).Err()
	})
}
