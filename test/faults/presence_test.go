package faults

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"tideline/test/fleet"
	"tideline/test/redistest"
)

const hall = "chat:hall"

// leavesWithin is the promise: a lease, and a sweep.
const leavesWithin = 20 * time.Second

// watcher subscribes to the hall and hears who comes and goes.
func watcher(t *testing.T, name string, n *node) *client {
	t.Helper()
	c := newClient(t, name, at(n), hall)
	c.subs[hall].joinLeave = true
	c.start(t)
	awaitSubscribed(t, subscribers([]*client{c}))
	return c
}

// members start clients that are in the hall, all of whom the watcher has heard join; url leads to their node.
func members(t *testing.T, w *client, name string, n int, url func() string) []*client {
	t.Helper()
	cs := make([]*client, n)
	for i := range cs {
		cs[i] = newClient(t, fmt.Sprintf("%s-%d", name, i), url, hall).start(t)
	}
	awaitSubscribed(t, subscribers(cs))
	within(t, time.Minute, "the watcher hears all join", func() error {
		joins, _ := w.heard()
		for _, id := range ids(cs) {
			if !slices.Contains(joins, id) {
				return check(false, "%s is missing among %d", id, len(joins))
			}
		}
		return nil
	})
	return cs
}

// ids are the client ids of the latest connections.
func ids(cs []*client) []string {
	all := make([]string, len(cs))
	for i, c := range cs {
		all[i] = *c.id.Load()
	}
	slices.Sort(all)
	return all
}

// heard answers whose joins and leaves the hall's subscription got, sorted.
func (c *client) heard() (joins, leaves []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	joins, leaves = slices.Clone(c.subs[hall].joins), slices.Clone(c.subs[hall].leaves)
	slices.Sort(joins)
	slices.Sort(leaves)
	return joins, leaves
}

// present asks who is in the hall, sorted.
func (c *client) present() ([]string, error) {
	m, err := c.call(`"presence":{"channel":"` + hall + `"}`)
	if err != nil {
		return nil, err
	}
	var in []string
	for id := range m.Presence.Presence {
		in = append(in, id)
	}
	slices.Sort(in)
	return in, nil
}

// wantPresent waits until exactly the watcher and the given are in the hall.
func wantPresent(t *testing.T, w *client, limit time.Duration, want []string) {
	t.Helper()
	want = append(slices.Clone(want), *w.id.Load())
	slices.Sort(want)
	within(t, limit, "presence is what it should be", func() error {
		got, err := w.present()
		if err != nil {
			return err
		}
		return check(slices.Equal(got, want), "%d are present, want %d", len(got), len(want))
	})
}

// A node dies with a thousand members: a subscriber on another node hears exactly their leaves, each once, in time.
func TestNodeKilledWithAThousandMembers(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	dying, other, third := startNode(t, "dying", r.URL()), startNode(t, "other", r.URL()), startNode(t, "third", r.URL())
	w := watcher(t, "watcher", other)
	stay := ids(members(t, w, "stays", 10, at(third)))
	gone := members(t, w, "goes", crowd(1000), at(dying))
	want := ids(gone)
	// A node reaps only when its own lease has been unbroken for as long as a lease lasts.
	pass(t, 15*time.Second)
	pauses := fleet.WatchPauses(t)
	died := time.Now()
	dying.Kill()
	for _, c := range gone {
		c.stop()
	}
	within(t, time.Minute, "all leaves are heard", func() error {
		_, leaves := w.heard()
		return check(len(leaves) >= len(want), "%d of %d", len(leaves), len(want))
	})
	took := time.Since(died)
	wantPresent(t, w, patience, stay)
	pass(t, 3*time.Second) // for a second survivor that would send them again
	_, leaves := w.heard()
	fmt.Printf("%s: %d members died with their node, %d leaves were heard by a subscriber on another node, the last after %v\n",
		t.Name(), len(want), len(leaves), took.Round(time.Millisecond))
	if !slices.Equal(leaves, want) {
		t.Errorf("%d leaves, want exactly the %d of those who died", len(leaves), len(want))
	}
	if pause := pauses.Since(died); took > leavesWithin+pause {
		t.Errorf("took %v, promised are %v; the machine paused for %v", took, leavesWithin, pause)
	}
}

// A node that is killed and comes back under the same name within its lease: the old members leave, the new ones stay.
func TestNodeRestartedUnderTheSameName(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	var first, current atomic.Pointer[node]
	first.Store(startNode(t, "phoenix", r.URL()))
	current.Store(first.Load())
	w := watcher(t, "watcher", startNode(t, "other", r.URL()))
	cs := members(t, w, "member", 100, func() string { return current.Load().socket })
	old := ids(cs)
	first.Load().Kill()
	current.Store(startNode(t, "phoenix", r.URL()))
	within(t, time.Minute, "all are back", func() error {
		back := 0
		for _, c := range cs {
			if c.connects.Load() == 2 {
				back++
			}
		}
		return check(back == len(cs), "%d of %d", back, len(cs))
	})
	awaitSubscribed(t, subscribers(cs))
	wantPresent(t, w, time.Minute, ids(cs))
	within(t, patience, "the old ones' leaves are heard", func() error {
		_, leaves := w.heard()
		return check(len(leaves) >= len(old), "%d of %d", len(leaves), len(old))
	})
	pass(t, 5*time.Second) // for one too many
	wantPresent(t, w, patience, ids(cs))
	joins, leaves := w.heard()
	both := append(slices.Clone(old), ids(cs)...)
	slices.Sort(both)
	fmt.Printf("%s: %d members came back on a node of the same name; the watcher heard %d joins and %d leaves\n", t.Name(), len(cs), len(joins), len(leaves))
	if joins = slices.DeleteFunc(joins, func(id string) bool { return id == *w.id.Load() }); !slices.Equal(joins, both) {
		t.Errorf("%d joins, want those of %d connections", len(joins), len(both))
	}
	if !slices.Equal(leaves, old) {
		t.Errorf("%d leaves, want exactly the %d old connections'", len(leaves), len(old))
	}
}

// Redis is away for longer than a lease: when it is back all leases look dead, and nobody may take them for that. All sockets have stayed
// open, so no leave is true, and none is heard.
func TestRedisAwayLongerThanALeaseMakesNobodyLeave(t *testing.T) {
	t.Parallel()
	w, cs := hallThrough(t, (*redistest.Server).Pause, (*redistest.Server).Resume)
	_, leaves := w.heard()
	if len(leaves) > 0 {
		t.Errorf("%d leaves, want none: %v", len(leaves), leaves)
	}
	for _, c := range append(cs, w) {
		if c.subs[hall].unsubscribes > 0 {
			t.Errorf("%s was told of a loss, and nothing was lost", c.name)
		}
	}
}

// The same with a Redis that comes back empty: everybody is told (2500) and subscribes again, which is a leave and a join. So a leave is
// heard at most once of each, and its join after it; in the end all are present.
func TestRedisBackEmptyAfterALeaseHasEverybodyPresentAgain(t *testing.T) {
	t.Parallel()
	w, cs := hallThrough(t, (*redistest.Server).Kill, (*redistest.Server).Restart)
	joins, leaves := w.heard()
	for _, c := range cs {
		if n := c.subs[hall].unsubscribes; n != 1 {
			t.Errorf("%s was told %d times", c.name, n)
		}
	}
	if unique := slices.Compact(slices.Clone(leaves)); len(unique) != len(leaves) {
		t.Errorf("%d leaves of %d clients", len(leaves), len(unique))
	}
	for _, id := range leaves {
		n := 0
		for _, j := range joins {
			if j == id {
				n++
			}
		}
		if n < 2 {
			t.Errorf("%s left, and was not heard to come back", id)
		}
	}
}

// hallThrough fills the hall from two nodes, takes Redis away for longer than a lease, and looks for as long as a false leave would take.
func hallThrough(t *testing.T, away, again func(*redistest.Server)) (w *client, cs []*client) {
	t.Helper()
	r := redistest.Start(t)
	one, two := startNode(t, "one", r.URL()), startNode(t, "two", r.URL())
	w = watcher(t, "watcher", one)
	cs = append(members(t, w, "one", 50, at(one)), members(t, w, "two", 50, at(two))...)
	want := ids(cs)
	away(r)
	pass(t, 18*time.Second)
	again(r)
	wantPresent(t, w, time.Minute, want)
	pass(t, pick(22*time.Second, 90*time.Second)) // a lease, and a sweep; or the second sweep after a minute, too
	wantPresent(t, w, patience, want)
	joins, leaves := w.heard()
	lost := int64(0)
	for _, c := range append(cs, w) {
		lost += c.disconnects.Load()
	}
	fmt.Printf("%s: %d members, Redis away for 18 s: %d joins and %d leaves heard, %d sockets lost, %d present afterwards\n",
		t.Name(), len(want), len(joins), len(leaves), lost, len(want))
	if lost > 0 {
		t.Errorf("%d sockets were lost", lost)
	}
	return w, cs
}
