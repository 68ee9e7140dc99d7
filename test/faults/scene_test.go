package faults

import (
	"fmt"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/test/redistest"
)

// Sizes of a scene.
const (
	sceneRooms   = 3  // chat rooms
	sceneClients = 12 // light clients a node, each in every room; one of the SDK and one that the server subscribes on top
	sceneEvery   = 50 * time.Millisecond
)

// scene is two nodes, subscribers on both, and a publisher a room that goes through the same Redis.
type scene struct {
	bus        *bus.Bus
	nodes      []*node
	clients    []*client
	all        []subscriber
	publishers []*publisher
}

// newScene starts a scene and waits until everybody is subscribed.
func newScene(t *testing.T, redis string) *scene {
	t.Helper()
	s := &scene{bus: openBus(t, redis)}
	var rooms []string
	for i := range sceneRooms {
		rooms = append(rooms, fmt.Sprintf("chat:room%d", i))
		s.publishers = append(s.publishers, newPublisher(t, s.bus, rooms[i]))
	}
	for i := range 2 {
		n := startNode(t, fmt.Sprint("node-", i), redis)
		s.nodes = append(s.nodes, n)
		for j := range sceneClients {
			s.clients = append(s.clients, newClient(t, fmt.Sprintf("client-%d-%d", i, j), at(n), rooms...).start(t))
		}
	}
	s.all = subscribers(s.clients)
	for i, n := range s.nodes {
		subscribed := newClient(t, fmt.Sprint("by-server-", i), at(n), rooms...)
		subscribed.bySrv, subscribed.token = true, signed(t, subscribed.name, rooms...)
		s.all = append(s.all, subscribed.start(t))
		s.all = append(s.all, startSDK(t, fmt.Sprint("sdk-", i), n.socket, rooms...))
	}
	awaitSubscribed(t, s.all)
	return s
}

// load publishes on all rooms until the answer is called.
func (s *scene) load(t *testing.T) (stop func()) {
	t.Helper()
	return load(t, sceneEvery, s.publishers...)
}

// caughtUp waits until everybody stands at what was acknowledged last. Nothing may be published meanwhile.
func (s *scene) caughtUp(t *testing.T) {
	t.Helper()
	awaitCaughtUp(t, s.all, s.publishers)
}

// progress waits until every publisher has had n more acknowledgements: the load goes on.
func (s *scene) progress(t *testing.T, n int) {
	t.Helper()
	before := make([]int, len(s.publishers))
	for i, p := range s.publishers {
		before[i] = p.count()
	}
	within(t, time.Minute, "publications are acknowledged", func() error {
		for i, p := range s.publishers {
			if done := p.count() - before[i]; done < n {
				return check(false, "%d of %d on %s", done, n, p.channel)
			}
		}
		return nil
	})
}

// verdict ends the load, lets everybody catch up, publishes once more to everybody, so that those who were told are seen to go on from the
// position that they were given, and judges.
func (s *scene) verdict(t *testing.T, stop func()) counts {
	t.Helper()
	stop()
	s.caughtUp(t)
	for _, p := range s.publishers {
		p.burst(t, 10)
	}
	return verdict(t, s.all, s.publishers...)
}

// redisWhileLoaded runs a scene on one Redis: load, the fault, more load, the verdict.
func redisWhileLoaded(t *testing.T, redis *redistest.Server, fault func(*scene)) counts {
	t.Helper()
	s := newScene(t, redis.URL())
	stop := s.load(t)
	s.progress(t, 20)
	fault(s)
	s.progress(t, 20)
	return s.verdict(t, stop)
}

// wantTold says how many subscriptions were to be told that something is gone: all of them, or none.
func (c counts) wantTold(t *testing.T, everybody bool) {
	t.Helper()
	switch {
	case everybody && c.told < c.subscriptions:
		t.Errorf("%d of %d subscriptions were told that offsets begin anew", c.told, c.subscriptions)
	case !everybody && c.told > 0:
		t.Errorf("%d subscriptions were told of a loss, and nothing was lost", c.told)
	}
}
