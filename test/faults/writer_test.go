package faults

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/test/redistest"
)

// thing is one todo, as it were: a version that grows with each write, and a channel on which each version is announced after it.
type thing struct {
	*publisher
	mu         sync.Mutex
	version    uint64
	superseded int
}

// write is the conditional write: it answers the version that it made.
func (d *thing) write() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.version++
	return d.version
}

// announce publishes a version as the functions do: with key and version.
func (d *thing) announce(t *testing.T, version uint64) bus.Result {
	t.Helper()
	res, err := d.bus.Publish(t.Context(), bus.Publication{Channel: d.channel, Data: fmt.Appendf(nil, `{"n":%d}`, version), History: d.history,
		ID: fmt.Sprint("thing:", version), Key: "thing", Version: version})
	if err != nil {
		t.Errorf("announce version %d on %s: %v", version, d.channel, err)
		return res
	}
	d.publisher.mu.Lock()
	defer d.publisher.mu.Unlock()
	if res.Superseded {
		d.superseded++
	} else {
		d.acked = append(d.acked, ack{version, res.Position, true})
	}
	return res
}

// A writer that stops between its write and its publish while a newer write is announced: what it says later is not heard.
func TestWriterPausedBeforeItsPublish(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	n := startNode(t, "n", r.URL())
	d := &thing{publisher: newPublisher(t, openBus(t, r.URL()), "chat:thing")}
	all := subscribers([]*client{newClient(t, "reader", at(n), d.channel).start(t)})
	all = append(all, startSDK(t, "sdk", n.socket, d.channel))
	awaitSubscribed(t, all)
	older := d.write() // and here the writer stops
	newer := d.write()
	if res := d.announce(t, newer); res.Superseded {
		t.Fatal("the newer version was superseded")
	}
	if res := d.announce(t, older); !res.Superseded {
		t.Errorf("the older version was published at %+v", res.Position)
	}
	d.announce(t, d.write())
	if c := verdict(t, all, d.publisher); c.acked != 2 {
		t.Errorf("%d of 3 versions were published, want the newest and the one after", c.acked)
	}
}

// Eight writers of the same things stop for random moments: per thing versions only grow, and the last one arrives.
func TestManyWritersPausedAtRandom(t *testing.T) {
	t.Parallel()
	const things, writers, writes = 4, 8, 100
	r := redistest.Start(t)
	n := startNode(t, "n", r.URL())
	b := openBus(t, r.URL())
	var ds []*thing
	var rooms []string
	var ps []*publisher
	for i := range things {
		d := &thing{publisher: newPublisher(t, b, fmt.Sprint("chat:thing", i))}
		ds, rooms, ps = append(ds, d), append(rooms, d.channel), append(ps, d.publisher)
	}
	all := subscribers([]*client{newClient(t, "reader", at(n), rooms...).start(t)})
	all = append(all, startSDK(t, "sdk", n.socket, rooms...))
	awaitSubscribed(t, all)
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range writes {
				d := ds[rand.N(len(ds))]
				v := d.write()
				pass(t, rand.N(5*time.Millisecond))
				d.announce(t, v)
			}
		})
	}
	writing.Wait()
	superseded := 0
	for _, d := range ds {
		superseded += d.superseded
		// Acknowledgements came in the order of the writers; the verdict wants that of the channel.
		d.sortAcked()
		if top, ok := d.top(); !ok || top.n != d.version {
			t.Errorf("%s: the last version published is %d, the last written %d", d.channel, top.n, d.version)
		}
	}
	verdict(t, all, ps...)
	fmt.Printf("%s: %d writes, %d superseded, the last of each thing was heard last\n", t.Name(), writers*writes, superseded)
	if superseded == 0 {
		t.Error("no writer was ever overtaken: the scenario proves nothing")
	}
}
