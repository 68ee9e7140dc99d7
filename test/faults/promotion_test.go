package faults

import (
	"fmt"
	"testing"
	"time"

	"tideline/test/redistest"
)

// pair is a primary and a replica whose link can be stopped, behind one name that nodes and publishers connect to, as a managed Redis has it.
type pair struct {
	primary, replica *redistest.Server
	link             *redistest.Proxy // replication runs through it
	name             *redistest.Proxy
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{primary: redistest.Start(t), replica: redistest.Start(t)}
	p.name = redistest.StartProxy(t, p.primary.Addr())
	p.link = replicate(t, p.replica, p.primary)
	return p
}

// replicate makes a server follow another through a proxy and waits until it does.
func replicate(t *testing.T, replica, primary *redistest.Server) *redistest.Proxy {
	t.Helper()
	link := redistest.StartProxy(t, primary.Addr())
	port := portOf(t, link.Addr())
	replica.Do("REPLICAOF", "127.0.0.1", port)
	replica.WaitLinked()
	return link
}

// stopReplication waits until the replica has everything and then cuts its link: what is published from here on is lost in a promotion.
func (p *pair) stopReplication(t *testing.T) {
	t.Helper()
	if n, ok := p.primary.Do("WAIT", "1", "10000").(int64); !ok || n != 1 {
		t.Fatalf("%v replicas have caught up", n)
	}
	p.link.Refuse(true)
	p.link.Cut()
	within(t, patience, "the replica has lost its link", func() error {
		return check(p.replica.Info("replication", "master_link_status") == "down", "still linked")
	})
}

// failOver promotes the replica, has fresh publications made there before anybody else arrives, and leads the name to it.
func (p *pair) failOver(t *testing.T, s *scene, fresh int) {
	t.Helper()
	p.replica.Promote()
	early := openBus(t, p.replica.URL())
	for _, pub := range s.publishers {
		through := pub.bus
		pub.bus = early
		pub.burst(t, fresh)
		pub.bus = through
	}
	p.name.Target(p.replica.Addr())
	p.name.Cut()
}

// A promoted replica that lacked the last publications gives their offsets to others. Equal offsets are the trap: fewer, as many and more
// new ones than were lost, before any node sees the new primary. A client that is away all the time falls into it too.
func TestReplicaPromotedAfterItLagged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		lost, fresh int
	}{{"fewer", 5, 2}, {"as many", 5, 5}, {"more", 5, 8}, {"none lost", 0, 3}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			s := newScene(t, p.name.URL())
			away := s.withAway(t)
			for _, pub := range s.publishers {
				pub.burst(t, 20)
			}
			s.caughtUp(t)
			p.stopReplication(t)
			for _, pub := range s.publishers {
				pub.burst(t, c.lost)
			}
			s.caughtUp(t) // everybody has what is about to be lost
			moveTo(at(s.nodes[1]), away)
			p.failOver(t, s, c.fresh)
			p.primary.Kill()
			stop := s.load(t)
			s.progress(t, 20)
			away.letGo()
			s.verdict(t, stop).wantTold(t, true)
		})
	}
}

// withAway adds a client that the scenario sends away and lets come back.
func (s *scene) withAway(t *testing.T) *client {
	t.Helper()
	var rooms []string
	for _, p := range s.publishers {
		rooms = append(rooms, p.channel)
	}
	c := newClient(t, fmt.Sprint("away-", len(s.all)), at(s.nodes[0]), rooms...).start(t)
	s.all = append(s.all, c)
	awaitSubscribed(t, s.all)
	return c
}

// There and back without a restart: the first server is primary again, its run id the same, its offsets used anew. One client was away from
// before the first failover until after the second.
func TestFailoverAndFailbackWithoutRestart(t *testing.T) {
	t.Parallel()
	there := newPair(t)
	s := newScene(t, there.name.URL())
	away := s.withAway(t)
	for _, pub := range s.publishers {
		pub.burst(t, 20)
	}
	s.caughtUp(t)
	there.stopReplication(t)
	for _, pub := range s.publishers {
		pub.burst(t, 5)
	}
	s.caughtUp(t)
	moveTo(at(s.nodes[0]), away)
	there.failOver(t, s, 2)

	back := &pair{primary: there.replica, replica: there.primary, name: there.name}
	back.link = replicate(t, back.replica, back.primary)
	back.stopReplication(t)
	for _, pub := range s.publishers {
		pub.burst(t, 3)
	}
	back.failOver(t, s, 3) // the away client's offset 25 exists again: 20 + 2 + 3
	stop := s.load(t)
	s.progress(t, 20)
	away.letGo()
	s.verdict(t, stop).wantTold(t, true)
}

// A replica that is replaced under load is nobody's business: the same epoch, nobody told, nothing read again.
func TestReplicaReplaced(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	s := newScene(t, p.name.URL())
	stop := s.load(t)
	s.progress(t, 10)
	before, _ := s.publishers[0].top()
	other := redistest.Start(t)
	other.ReplicaOf(p.primary)
	p.replica.Kill()
	s.progress(t, 10)
	other.Kill()
	third := redistest.Start(t)
	third.ReplicaOf(p.primary)
	s.progress(t, 20)
	if after, _ := s.publishers[0].top(); after.pos.Epoch != before.pos.Epoch {
		t.Errorf("the epoch changed from %s to %s", before.pos.Epoch, after.pos.Epoch)
	}
	s.verdict(t, stop).wantTold(t, false)
}

// A slot moves between shards of a cluster, key by key, while its channel is published on and listened to.
func TestClusterSlotMovedUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s := newScene(t, cluster.URL())
	stop := s.load(t)
	s.progress(t, 20)
	key := ""
	for _, shard := range cluster.Shards {
		if keys, _ := shard.Do("KEYS", "tl:"+stage+":{*}:m:"+s.publishers[0].channel).([]any); len(keys) == 1 {
			key = keys[0].(string)
		}
	}
	if key == "" {
		t.Fatal("no shard has the channel")
	}
	slot := cluster.Slot(key)
	from := cluster.Owner(slot)
	m := cluster.Migrate(slot, (from+1)%len(cluster.Shards))
	pass(t, 500*time.Millisecond) // publishers meet ASK
	for _, k := range m.Keys(100) {
		m.Move(k)
		pass(t, 100*time.Millisecond) // publishers meet TRYAGAIN: some keys here, some there
	}
	m.Finish()
	if now := cluster.Owner(slot); now == from {
		t.Fatalf("slot %d is still with shard %d", slot, from)
	}
	s.progress(t, 30)
	s.verdict(t, stop)
}
