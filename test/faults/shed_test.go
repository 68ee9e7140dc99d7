package faults

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/fleet"
	"tideline/test/redistest"
)

// What docs/operations.md promises of shedding, in its own words and not by the constants of the code: up to 1.25 times the mean a node keeps
// what it has, and it closes at most 2 % of its connections a second.
const (
	shedAbove = 1.25
	shedShare = 0.02
)

// A third node is added under load: the two others shed what they have above 1.25 times the fleet's mean, slowly, and stop there.
func TestThirdNodeAddedUnderLoad(t *testing.T) {
	t.Parallel()
	const rooms = 10
	r := redistest.Start(t)
	seats := []*seat{newSeat(t), newSeat(t), newSeat(t)}
	shed := "SHED_AGE=1s" // connections are younger here than a cookie
	nodes := []*node{seats[0].start(t, "first", r.URL(), shed), seats[1].start(t, "second", r.URL(), shed)}
	socket := balance(t, seats...)
	b := openBus(t, r.URL())
	var names []string
	var ps []*publisher
	for i := range rooms {
		names = append(names, fmt.Sprint("chat:room", i))
		ps = append(ps, newPublisher(t, b, names[i]))
	}
	clients, all, came := everywhere(t, socket, max(crowd(600), 300), names) // fewer have no excess that is worth it
	stop := load(t, rooms*time.Second/100, ps...)
	pauses := fleet.WatchPauses(t)
	began := time.Now()
	nodes = append(nodes, seats[2].start(t, "third", r.URL(), shed))

	mean := float64(len(all)) / float64(len(nodes))
	var held []float64
	within(t, time.Minute, "no node is far above the mean", func() error {
		held = held[:0]
		for _, n := range nodes {
			held = append(held, n.metric(t, "websocket_connections_active"))
		}
		return check(slices.Max(held) <= shedAbove*mean, "they hold %v, the mean is %.0f", held, mean)
	})
	took := time.Since(began)
	pass(t, 2*limit.Heartbeat+time.Second) // it must stop there
	stop()
	verdict(t, all, ps...).wantTold(t, false)

	moved := 0
	for _, c := range clients {
		moved += c.said(3011)
		if c.disconnects.Load() != int64(c.said(3011)) {
			t.Errorf("%s lost a connection by something else than 3011", c.name)
		}
	}
	total, most, _ := came.spread(began, time.Second)
	// Two nodes shed, each at its rate; a client's backoff may move its return into the next second.
	rate := 2 * max(1, int(shedShare*float64(len(all))/2))
	excess := float64(len(all)) - mean - 2*mean // of both together, over the mean
	fmt.Printf("%s: %d clients on two nodes; after %v three nodes hold %v; %d were moved, at most %d a second\n", t.Name(), len(all),
		took.Round(100*time.Millisecond), held, moved, most)
	pause := pauses.Since(began) // after which what would have come meanwhile comes at once
	if most > 2*rate*(1+int(pause/time.Second)) {
		t.Errorf("%d reconnects in one second, shed are at most %d; the machine paused for %v", most, rate, pause)
	}
	if moved == 0 || float64(total) > excess+mean {
		t.Errorf("%d were moved and %d came back, the excess is about %.0f", moved, total, mean)
	}
}
