package faults

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"tideline/shared/bus"
)

// subscriber is a client of either kind, as the verdict sees it.
type subscriber interface {
	// look calls f with each of its records, and nothing of them changes meanwhile.
	look(f func(*record))
	complaint() string
	reconnected() int64
}

func (c *client) look(f func(*record)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.order {
		f(c.subs[name])
	}
}

func (c *client) complaint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

func (c *client) reconnected() int64 { return max(0, c.connects.Load()-1) }

func subscribers[S subscriber](of []S) []subscriber {
	all := make([]subscriber, len(of))
	for i, s := range of {
		all[i] = s
	}
	return all
}

// awaitSubscribed waits until every subscription stands.
func awaitSubscribed(t *testing.T, all []subscriber) {
	t.Helper()
	within(t, time.Minute, "everybody is subscribed", func() error {
		missing := 0
		for _, s := range all {
			s.look(func(r *record) {
				if !r.live {
					missing++
				}
			})
		}
		return check(missing == 0, "%d subscriptions are missing", missing)
	})
}

// awaitCaughtUp waits until every subscriber stands at the last acknowledged publication of each of its channels.
func awaitCaughtUp(t *testing.T, all []subscriber, ps []*publisher) {
	t.Helper()
	tops := map[string]ack{}
	for _, p := range ps {
		if top, ok := p.top(); ok {
			tops[p.channel] = top
		}
	}
	within(t, time.Minute, "everybody has caught up", func() error {
		behind, example := 0, ""
		for _, s := range all {
			s.look(func(r *record) {
				top, at := tops[r.channel], r.current()
				if top.n != 0 && (at == nil || !r.live || at.epoch != top.pos.Epoch || at.last() < top.pos.Offset) {
					behind++
					example = fmt.Sprintf("%s on %s (live %v) is at %+v, the channel at %+v", r.client, r.channel, r.live, place(at), top.pos)
				}
			})
		}
		return check(behind == 0, "%d of them are not there yet: %s", behind, example)
	})
}

func place(s *stretch) bus.Position {
	if s == nil {
		return bus.Position{}
	}
	return bus.Position{Epoch: s.epoch, Offset: s.last()}
}

// counts is what a verdict found, summed over all subscriptions.
type counts struct {
	subscribers, subscriptions     int
	acked                          int
	due, received, skipped, unseen int // due = received + skipped (told) + lost; unseen: before the first subscribe
	lost, wrong, broken            int
	told, unsubscribes, again      int
	reconnects                     int64
}

// verdict waits until everybody has caught up, then compares what was acknowledged with what was received, prints the counts, and fails the
// test for everything that was lost in silence, came twice, out of order, or was another message than the acknowledged one.
func verdict(t *testing.T, all []subscriber, ps ...*publisher) counts {
	t.Helper()
	awaitCaughtUp(t, all, ps)
	c := counts{subscribers: len(all)}
	byChannel := map[string][]ack{}
	for _, p := range ps {
		byChannel[p.channel] = p.acked
		c.acked += len(p.acked)
	}
	complaints := 0
	for _, s := range all {
		if why := s.complaint(); why != "" {
			t.Errorf("a client gave up: %s", why)
		}
		c.reconnects += s.reconnected()
		s.look(func(r *record) {
			c.subscriptions++
			c.told += r.told
			c.unsubscribes += r.unsubscribes
			c.broken += r.broken
			for _, f := range r.faults {
				if complaints++; complaints <= 10 {
					t.Error(f)
				}
			}
			if problem := c.compare(r, byChannel[r.channel]); problem != "" {
				if complaints++; complaints <= 10 {
					t.Error(problem)
				}
			}
		})
	}
	line := fmt.Sprintf("%s: %d publications acknowledged, %d subscribers owed %d: received %d, told that %d are gone, lost in silence %d, "+
		"twice or out of order %d, wrong %d; %d times told, %d unsubscribe pushes, %d reconnects, %d repeated after being told",
		t.Name(), c.acked, c.subscribers, c.due, c.received, c.skipped, c.lost, c.broken, c.wrong, c.told, c.unsubscribes, c.reconnects, c.again)
	fmt.Fprintln(os.Stdout, line)
	if c.lost+c.broken+c.wrong > 0 {
		t.Errorf("broken promises: %s", line)
	}
	if c.due == 0 {
		t.Error("nobody was owed anything: the scenario proves nothing")
	}
	return c
}

// compare judges one subscription; it answers the first problem in words.
func (c *counts) compare(r *record, acked []ack) (problem string) {
	say := func(format string, args ...any) {
		if problem == "" {
			problem = fmt.Sprintf("%s on %s: ", r.client, r.channel) + fmt.Sprintf(format, args...)
		}
	}
	byNumber := make(map[uint64]ack, len(acked))
	for _, a := range acked {
		byNumber[a.n] = a
	}
	times := map[uint64]int{}
	for _, s := range r.stretches {
		for i, n := range s.got {
			times[n]++
			if a := byNumber[n]; a.once && a.pos != (bus.Position{Epoch: s.epoch, Offset: s.from + 1 + uint64(i)}) {
				c.wrong++
				say("message %d came at offset %d of epoch %s, and was acknowledged at %+v", n, s.from+1+uint64(i), s.epoch, a.pos)
			}
		}
	}
	// What was acknowledged in another epoch before the first stretch's was before the subscriber came.
	came := len(acked)
	if len(r.stretches) > 0 {
		came = slices.IndexFunc(acked, func(a ack) bool { return a.pos.Epoch == r.stretches[0].epoch })
	}
	for i, a := range acked {
		if times[a.n] > 1 {
			c.again += times[a.n] - 1 // in different stretches: within one, heard has seen it
		}
		last := len(r.stretches) - 1
		covered, inEpoch := false, -1
		for i, s := range r.stretches {
			if s.epoch != a.pos.Epoch {
				continue
			}
			inEpoch = i
			if a.pos.Offset <= s.from || a.pos.Offset > s.last() {
				continue
			}
			covered = true
			c.due++
			switch n := s.got[a.pos.Offset-s.from-1]; n {
			case a.n:
				c.received++
			case 0:
				c.lost++
			default:
				c.wrong++ // once more for the message itself, if it was acknowledged elsewhere
				say("offset %d of epoch %s is message %d, and was acknowledged as %d", a.pos.Offset, s.epoch, n, a.n)
			}
		}
		switch {
		case covered:
		case last >= 0 && r.stretches[0].epoch == a.pos.Epoch && a.pos.Offset <= r.stretches[0].from, inEpoch < 0 && i < came:
			c.unseen++
		case inEpoch == last && a.pos.Offset > r.stretches[last].last():
			c.due++
			c.lost++
			say("offset %d (message %d) never came, and nobody said so", a.pos.Offset, a.n)
		case last > 0: // it lies between two stretches, and the second began with recovered: false
			c.due++
			c.skipped++
		default:
			c.due++
			c.lost++
			say("message %d at %+v is of no epoch that the subscriber knows", a.n, a.pos)
		}
	}
	return problem
}
