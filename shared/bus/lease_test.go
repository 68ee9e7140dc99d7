package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/redistest"
)

// The durations of most tests: a twentieth of the real ones.
const (
	testBeat  = limit.Heartbeat / 20
	testTTL   = limit.LeaseTTL / 20
	testAudit = 600 * time.Millisecond
)

// testNode is a lease that runs, with the members that its node would hold.
type testNode struct {
	*Lease
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	members map[string]map[string]ClientInfo
}

type nodeOption func(*LeaseOptions)

func slowAudit(o *LeaseOptions) { o.Audit = time.Hour }
func realTimes(o *LeaseOptions) { o.Heartbeat, o.TTL, o.Audit = 0, 0, 0 }

// startNode runs a lease until stop, or the end of the test, and returns when it has its lease.
func startNode(t testing.TB, b *Bus, name string, options ...nodeOption) *testNode {
	t.Helper()
	n := &testNode{done: make(chan struct{}), members: make(map[string]map[string]ClientInfo)}
	o := LeaseOptions{
		Node: name, Members: n.list, Heartbeat: testBeat, TTL: testTTL, Audit: testAudit,
		Info: func() NodeInfo {
			return NodeInfo{Version: "v1", State: "ready", Started: time.Unix(int64(len(name)), 0)}
		},
	}
	for _, option := range options {
		option(&o)
	}
	n.Lease = b.NewLease(o)
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() {
		defer close(n.done)
		if err := n.Run(ctx); err != nil {
			t.Errorf("lease of %s: %v", name, err)
		}
	}()
	t.Cleanup(n.end)
	n.wait(t)
	return n
}

// end stops the lease and waits.
func (n *testNode) end() {
	n.stop()
	<-n.done
}

// wait returns when the node has a lease.
func (n *testNode) wait(t testing.TB) {
	t.Helper()
	eventually(t, func() error {
		n.Lease.mu.Lock()
		defer n.Lease.mu.Unlock()
		if !n.held {
			return errors.New("no lease")
		}
		return nil
	})
}

func (n *testNode) list() map[string][]ClientInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	lists := make(map[string][]ClientInfo, len(n.members))
	for channel, members := range n.members {
		lists[channel] = slices.Collect(maps.Values(members))
	}
	return lists
}

// enter lists a member and then enters it, as LeaseOptions.Members asks.
func (n *testNode) enter(t testing.TB, channel, client string) {
	t.Helper()
	n.mu.Lock()
	if n.members[channel] == nil {
		n.members[channel] = make(map[string]ClientInfo)
	}
	n.members[channel][client] = info(client)
	n.mu.Unlock()
	if err := n.Enter(t.Context(), channel, info(client), true); err != nil {
		t.Errorf("enter %s: %v", client, err)
	}
}

func (n *testNode) leave(t testing.TB, channel, client string) {
	t.Helper()
	n.unlist(channel, client)
	if err := n.Leave(t.Context(), channel, client, true); err != nil {
		t.Errorf("leave %s: %v", client, err)
	}
}

func (n *testNode) unlist(channel, client string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.members[channel], client)
}

// waitUnbroken returns when the node may reap.
func (n *testNode) waitUnbroken(t testing.TB) {
	t.Helper()
	eventually(t, func() error {
		n.Lease.mu.Lock()
		defer n.Lease.mu.Unlock()
		if n.unbroken.IsZero() || time.Since(n.unbroken) < n.o.TTL {
			return errors.New("not held for a TTL")
		}
		return nil
	})
}

// rooms are channels in different partitions.
var rooms = []string{"chat:a", "chat:b", "chat:c", "chat:d", "chat:e"}

func fill(t testing.TB, n *testNode, prefix string, count int) {
	t.Helper()
	var callers sync.WaitGroup
	for c := range 4 {
		callers.Go(func() {
			for i := c; i < count; i += 4 {
				n.enter(t, rooms[i%len(rooms)], fmt.Sprintf("%s/%d", prefix, i))
			}
		})
	}
	callers.Wait()
}

func countMembers(t testing.TB, b *Bus) (total int) {
	t.Helper()
	for _, room := range rooms {
		stats, err := b.PresenceStats(t.Context(), room)
		if err != nil {
			t.Fatal(err)
		}
		total += stats.Clients
	}
	return total
}

// behindProxy opens a bus of one node whose connections can be cut, which is how these tests kill a node: no goodbye reaches Redis.
func behindProxy(t testing.TB, s *redistest.Server) (*Bus, func()) {
	p := redistest.StartProxy(t, s.Addr())
	b := openTest(t, Options{URL: p.URL()})
	return b, func() { p.Refuse(true); p.Cut() }
}

// A node dies with 1,000 members: two survivors reap it at the same time and every leave is heard once.
func testKilled(t *testing.T, options ...nodeOption) {
	s := redistest.Start(t)
	b := openTest(t, Options{URL: s.URL()})
	dying, kill := behindProxy(t, s)
	heard := listenTo(t, b, rooms...)
	one, two := startNode(t, b, "one", options...), startNode(t, b, "two", options...)
	one.enter(t, rooms[0], "survivor/1")
	victim := startNode(t, dying, "victim", options...)
	fill(t, victim, "v", 1000)
	eventually(t, func() error {
		if nodes, err := b.Nodes(t.Context()); err != nil || len(nodes) != 3 {
			return fmt.Errorf("%d nodes, %v", len(nodes), err)
		}
		return nil
	})
	kill()
	killed := time.Now()
	victim.stop()
	eventually(t, func() error {
		if _, leaves, _, left := heard.heard(); leaves < 1000 || left < 1000 {
			return fmt.Errorf("%d leaves of %d clients", leaves, left)
		}
		return nil
	})
	took := time.Since(killed)
	one.end()
	two.end()
	heard.drain(t, b, rooms)
	joins, leaves, joined, left := heard.heard()
	t.Logf("%d joins, then %d leaves of %d clients within %v of the kill", joins, leaves, left, took.Round(time.Millisecond))
	// The survivor's own member left with it.
	if joins != 1001 || joined != 1001 || leaves != 1001 || left != 1001 {
		t.Errorf("%d joins of %d, %d leaves of %d, want 1,001 each", joins, joined, leaves, left)
	}
	if n := countMembers(t, b); n != 0 {
		t.Errorf("%d members left", n)
	}
}

func TestLeaseKilled(t *testing.T) {
	t.Parallel()
	testKilled(t)
}

func TestLeaseKilledInRealTime(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a real lease's time")
	}
	testKilled(t, realTimes)
}

func TestLeaseOfANodeRestartedUnderItsName(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	b := openTest(t, Options{URL: s.URL()})
	dying, kill := behindProxy(t, s)
	heard := listenTo(t, b, rooms...)
	long := func(o *LeaseOptions) { o.Heartbeat, o.TTL = 1500*time.Millisecond, 4*time.Second } // both live while the second one fills
	before := startNode(t, dying, "n1", long)
	fill(t, before, "before", 100)
	kill()
	before.stop()

	after := startNode(t, b, "n1", long)
	fill(t, after, "after", 100)
	if nodes, err := b.Nodes(t.Context()); err != nil || len(nodes) != 2 || nodes[0].ID != "n1" || nodes[1].ID != "n1" || nodes[0].Boot == nodes[1].Boot {
		t.Errorf("while both leases live: %+v, %v", nodes, err)
	}
	eventually(t, func() error {
		if _, leaves, _, _ := heard.heard(); leaves < 100 {
			return fmt.Errorf("%d leaves", leaves)
		}
		return nil
	})
	if n := countMembers(t, b); n != 100 {
		t.Errorf("%d members, want the new 100", n)
	}
	heard.mu.Lock()
	defer heard.mu.Unlock()
	for client := range heard.leaves {
		if client[:6] != "before" {
			t.Errorf("%s left", client)
		}
	}
	if len(heard.leaves) != 100 {
		t.Errorf("%d clients left, want 100", len(heard.leaves))
	}
}

// Redis is away for longer than a lease, in three ways; afterwards everybody is still there and nobody was said to have left.
func TestLeaseSurvivesAnOutage(t *testing.T) {
	t.Parallel()
	const away = testTTL + 2*testBeat
	outages := map[string]func(t *testing.T, s *redistest.Server){
		"paused": func(t *testing.T, s *redistest.Server) {
			s.Pause()
			waitFor(t, away)
			s.Resume()
		},
		"restarted": func(t *testing.T, s *redistest.Server) {
			s.Stop()
			waitFor(t, away)
			s.Restart()
		},
		"restarted empty": func(t *testing.T, s *redistest.Server) {
			s.Kill()
			waitFor(t, away)
			s.Restart()
			s.Do("FLUSHALL")
		},
		// Long enough for the lease that is the oldest, too short for the youngest: who is back first must not reap the other.
		"shorter than some leases": func(t *testing.T, s *redistest.Server) {
			s.Pause()
			waitFor(t, testTTL-testBeat/2)
			s.Resume()
		},
	}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, "--appendonly", "yes")
			b := openTest(t, Options{URL: s.URL()})
			nodes := []*testNode{startNode(t, b, "one"), startNode(t, b, "two"), startNode(t, b, "three")}
			for i, n := range nodes {
				fill(t, n, fmt.Sprint(i), 100)
				n.waitUnbroken(t)
			}
			heard := listenTo(t, b, rooms...)
			outage(t, s)
			for _, n := range nodes {
				n.wait(t)
			}
			eventually(t, func() error {
				if n := countMembers(t, b); n != 300 {
					return fmt.Errorf("%d members, want 300", n)
				}
				return nil
			})
			// Past the time in which survivors reap: everybody has held a lease for a TTL, and audited twice.
			for _, n := range nodes {
				n.waitUnbroken(t)
			}
			waitFor(t, 2*testAudit)
			joins, leaves, _, _ := heard.heard()
			t.Logf("300 members over an outage: %d leaves, %d joins", leaves, joins)
			if leaves != 0 {
				t.Errorf("%d leaves, want none", leaves)
			}
			if n := countMembers(t, b); n != 300 {
				t.Errorf("%d members, want 300", n)
			}
			wantNodes(t, b, "one", "three", "two")
		})
	}
}

// wantNodes waits until exactly these nodes have a lease; a lease of a moment may have ended while the machine stood still.
func wantNodes(t testing.TB, b *Bus, want ...string) {
	t.Helper()
	eventually(t, func() error {
		nodes, err := b.Nodes(t.Context())
		var got []string
		for _, n := range nodes {
			got = append(got, n.ID)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("nodes %v (%v), want %v", got, err, want)
		}
		return nil
	})
}

// waitFor lets a time pass that is itself what is tested: a lease's.
func waitFor(t testing.TB, d time.Duration) {
	t.Helper()
	if !sleep(t.Context(), d) {
		t.Fatal("test ended")
	}
}

func TestLeaseAfterAFlush(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, o Options) {
		b := openTest(t, o)
		n := startNode(t, b, "one")
		boot := n.Boot()
		fill(t, n, "f", 200)
		if b.cluster != nil {
			for p := range limit.Partitions {
				b.client.Del(t.Context(), b.partitionPrefix(p)+keyIndex+boot, b.partitionPrefix(p)+keyGenerations)
			}
			for _, room := range rooms {
				b.client.Del(t.Context(), b.key(keyPresence, room))
			}
			b.client.Del(t.Context(), b.fleetKey(fleetAll), b.fleetKey(fleetLease+boot))
		} else if err := b.client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if got := countMembers(t, b); got != 200 {
				return fmt.Errorf("%d members, want 200", got)
			}
			if n.Boot() == boot { // an audit may come before the heartbeat that finds out
				return errors.New("the generation goes on after its lease has vanished")
			}
			return nil
		})
	})
}

// The registry alone is lost, again and again, while the members are still there: nobody takes another's lost lease for a death.
func TestLeaseRegistryLost(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	nodes := []*testNode{startNode(t, b, "one"), startNode(t, b, "two"), startNode(t, b, "three")}
	for i, n := range nodes {
		fill(t, n, fmt.Sprint(i), 20)
	}
	heard := listenTo(t, b, rooms...)
	const rounds = 4
	for range rounds {
		for _, n := range nodes {
			n.waitUnbroken(t)
		}
		keys, lost := []string{b.fleetKey(fleetAll)}, make(map[*testNode]string)
		for _, n := range nodes[1:] {
			lost[n] = n.Boot()
			keys = append(keys, b.fleetKey(fleetLease+lost[n]))
		}
		if err := b.client.Del(t.Context(), keys...).Err(); err != nil { // one keeps its lease, and may reap
			t.Fatal(err)
		}
		waitFor(t, testAudit) // time for one to look, and to find generations that no registry knows
		for n, boot := range lost {
			eventually(t, func() error {
				if n.Boot() == boot {
					return fmt.Errorf("%s is still in generation %s", n.o.Node, boot)
				}
				return nil
			})
		}
	}
	for _, n := range nodes {
		n.waitUnbroken(t)
	}
	heard.drain(t, b, rooms)
	joins, leaves, _, _ := heard.heard()
	t.Logf("the registry lost %d times: %d leaves, %d joins", rounds, leaves, joins)
	if joins+leaves != 0 {
		t.Error("want none: nobody has come or gone")
	}
	if n := countMembers(t, b); n != 60 {
		t.Errorf("%d members, want 60", n)
	}
}

func testLeaseGivenUp(t *testing.T, o Options) {
	b := openTest(t, o)
	leaving, staying := startNode(t, b, "leaving", slowAudit), startNode(t, b, "staying", slowAudit)
	heard := listenTo(t, b, rooms[0])
	leaving.enter(t, rooms[0], "l/1")
	staying.enter(t, rooms[0], "s/1")
	leaving.end()
	wantMembers(t, b, rooms[0], "s/1") // at once: no survivor has had the time
	heard.wantOrder(t, "+l/1 +s/1 -l/1")
	wantNodes(t, b, "staying")
	wantErr(t, leaving.Enter(t.Context(), rooms[0], info("l/2"), true), ErrUnavailable)
	wantErr(t, leaving.Leave(t.Context(), rooms[0], "l/1", true), ErrUnavailable)
	wantMembers(t, b, rooms[0], "s/1")
}

// The audit puts right what calls without an answer have left: entries too many and too few, and those under a generation that was reaped.
func testLeaseAudit(t *testing.T, o Options) {
	b := openTest(t, o)
	n := startNode(t, b, "one")
	heard := listenTo(t, b, rooms[0])
	n.enter(t, rooms[0], "a/1")
	n.enter(t, rooms[0], "a/2")
	heard.wantOrder(t, "+a/1 +a/2")

	n.unlist(rooms[0], "a/1") // its Leave got lost
	heard.wantOrder(t, "+a/1 +a/2 -a/1")
	b.client.Del(t.Context(), b.key(keyPresence, rooms[0]))
	heard.wantOrder(t, "+a/1 +a/2 -a/1 +a/2")

	n.waitUnbroken(t)
	late := one(newEntry(rooms[0], info("z/1"), true))
	if _, err := b.enter(t.Context(), generation{"dead", 1}, "take", partition(rooms[0]), late); err != nil {
		t.Fatal(err)
	}
	heard.wantOrder(t, "+a/1 +a/2 -a/1 +a/2 +z/1 -z/1")
	wantMembers(t, b, rooms[0], "a/2")
}

// A channel whose members are kept and not announced: neither entering again nor dying is heard.
func TestLeaseOfQuietChannels(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	b := openTest(t, Options{URL: s.URL()})
	dying, kill := behindProxy(t, s)
	quiet := func(o *LeaseOptions) { o.Announces = func(channel string) bool { return channel != rooms[0] } }
	startNode(t, b, "survivor", quiet).waitUnbroken(t)
	victim := startNode(t, dying, "victim", quiet)
	victim.enter(t, rooms[1], "v/1")
	heard := listenTo(t, b, rooms[:2]...)
	victim.mu.Lock()
	victim.members[rooms[0]] = map[string]ClientInfo{"v/0": info("v/0")} // its Enter got lost: the audit does it
	victim.mu.Unlock()
	eventually(t, func() error {
		if stats, err := b.PresenceStats(t.Context(), rooms[0]); stats.Clients != 1 {
			return fmt.Errorf("%d members, %v", stats.Clients, err)
		}
		return nil
	})
	kill()
	victim.stop()
	eventually(t, func() error {
		if n := countMembers(t, b); n != 0 {
			return fmt.Errorf("%d members", n)
		}
		return nil
	})
	heard.drain(t, b, rooms[:2])
	heard.wantOrder(t, "-v/1")
}

// Members come and go while the audit runs all the time: afterwards Redis has exactly what the nodes list.
func TestLeaseAuditAgainstTraffic(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	busy := func(o *LeaseOptions) { o.Audit = 5 * time.Millisecond }
	nodes := []*testNode{startNode(t, b, "one", busy), startNode(t, b, "two", busy)}
	heard := listenTo(t, b, rooms...)
	var clients sync.WaitGroup
	for c := range 8 {
		clients.Go(func() {
			n := nodes[c%2]
			for i := range 60 {
				client, room := fmt.Sprintf("c%d/%d", c, i), rooms[i%len(rooms)]
				n.enter(t, room, client)
				if i%4 != 0 {
					n.leave(t, room, client)
				}
			}
		})
	}
	clients.Wait()
	const stayed = 8 * 15
	eventually(t, func() error {
		if n := countMembers(t, b); n != stayed {
			return fmt.Errorf("%d members, want %d", n, stayed)
		}
		return nil
	})
	for _, n := range nodes {
		n.end()
	}
	heard.drain(t, b, rooms)
	joins, leaves, joined, left := heard.heard()
	t.Logf("%d joins of %d clients, %d leaves of %d", joins, joined, leaves, left)
	if joins != leaves || joined != left || joined != 8*60 {
		t.Errorf("joins and leaves must be pairs, of 480 clients")
	}
}

func TestLeaseRefuses(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: "redis://127.0.0.1:1"})
	for name, o := range map[string]LeaseOptions{
		"two heartbeats in a lease": {Heartbeat: time.Second, TTL: 2 * time.Second},
		"negative heartbeat":        {Heartbeat: -1},
		"negative audit":            {Audit: -1},
	} {
		t.Run(name, func(t *testing.T) { wantErr(t, b.NewLease(o).Run(t.Context()), ErrInvalid) })
	}
	l := b.NewLease(LeaseOptions{Heartbeat: time.Second, TTL: 2*time.Second + 1})
	wantErr(t, l.Enter(t.Context(), "chat:a", info("a/1"), true), ErrUnavailable)
	wantErr(t, l.Enter(t.Context(), "chat a", info("a/1"), true), ErrInvalid)
	wantErr(t, l.Leave(t.Context(), "chat:a", "", true), ErrInvalid)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := l.Run(ctx); err != nil {
		t.Errorf("a Redis that is away is no error of Run: %v", err)
	}
	_, err := b.Nodes(ctx)
	wantErr(t, err, ErrUnavailable)
}

func testNodes(t *testing.T, o Options) {
	b := openTest(t, o)
	second, first := startNode(t, b, "second"), startNode(t, b, "first") // the shorter name has started earlier
	wantNodes(t, b, "first", "second")
	nodes, err := b.Nodes(t.Context())
	if err != nil || len(nodes) != 2 {
		t.Fatalf("%+v, %v", nodes, err)
	}
	if nodes[0].ID != "first" || nodes[0].Boot != first.Boot() || nodes[1].Boot != second.Boot() {
		t.Errorf("nodes %+v", nodes)
	}
	third := startNode(t, b, "third", func(o *LeaseOptions) { o.Info = nil })
	if nodes, err := b.Nodes(t.Context()); err != nil || len(nodes) != 3 || nodes[2].ID != "third" || time.Since(nodes[2].Started) > testTimeout {
		t.Errorf("with %s, which doesn't say when it started: %+v, %v", third.Boot(), nodes, err)
	}
	if n := nodes[0]; n.Version != "v1" || n.State != "ready" || time.Since(n.Beat) > testTimeout {
		t.Errorf("node %+v", n)
	}
}
