package hub

import (
	"bufio"
	"fmt"
	"testing"
	"time"

	"tideline/shared/bus"
)

// paced answers when each of n publications, a gap apart on a channel of subs subscriptions, is written: after how long.
func paced(subs, n int, gap time.Duration) (waits []time.Duration) {
	s := &schedule{cost: costFirst}
	a := &audience{subs: make([]*Subscription, subs)}
	now := time.Unix(1000, 0)
	var waiting []time.Time
	write := func(at time.Time) {
		for _, since := range waiting {
			waits = append(waits, at.Sub(since))
		}
		waiting, s.wide.conns, s.till = nil, nil, time.Time{}
	}
	for range n {
		s.pace(a, now)
		s.wide.conns = []*Conn{nil}
		waiting = append(waiting, now)
		if s.till.IsZero() {
			write(now)
		}
		if next := now.Add(gap); !s.till.IsZero() && !s.till.After(next) {
			write(s.till)
		}
		now = now.Add(gap)
	}
	return waits
}

func TestPublicationsWaitOnlyForOthersThatCome(t *testing.T) {
	for name, c := range map[string]struct {
		subs       int
		gap        time.Duration
		mean, most time.Duration
	}{
		"20 a second to many":         {500, 50 * time.Millisecond, 0, 0},
		"80 a second to many":         {500, 12500 * time.Microsecond, 0, 0},
		"100 a second to many: pairs": {500, 10 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond},
		"1,000 a second to many":      {500, time.Millisecond, 5 * time.Millisecond, paceMost},
		"100 a second to few":         {150, 10 * time.Millisecond, 0, 0},
	} {
		waits := paced(c.subs, 1200, c.gap)[1000:] // the moving average has settled
		var sum, most time.Duration
		for _, w := range waits {
			sum, most = sum+w, max(most, w)
		}
		if mean := sum / time.Duration(len(waits)); mean < c.mean-c.mean/10 || mean > c.mean+c.mean/4 || most > c.most || most > paceMost {
			t.Errorf("%s: wait %v in the mean and %v at most, want %v and %v", name, mean, most, c.mean, c.most)
		}
	}
}

func TestAChannelAfterASilenceDoesNotWait(t *testing.T) {
	s := &schedule{cost: costFirst}
	a := &audience{subs: make([]*Subscription, 500)}
	now := time.Unix(1000, 0)
	for range 1000 {
		now = now.Add(10 * time.Millisecond)
		s.pace(a, now)
		s.till = time.Time{}
	}
	now = now.Add(time.Minute)
	if s.pace(a, now); !s.till.IsZero() {
		t.Errorf("the first publication after a minute waits %v", s.till.Sub(now))
	}
}

// TestAnUrgentFrameTakesTheWaitingAlong: what waits is written when its connection has something urgent, in order, and the others' later.
func TestAnUrgentFrameTakesTheWaitingAlong(t *testing.T) {
	r := newRig(t, 1)
	const subs = wideLeast
	owners := make([]*owner, subs)
	readers := make([]*bufio.Reader, subs)
	for i := range owners {
		o, client := r.dial()
		owners[i], readers[i] = o, bufio.NewReader(client)
		r.enter(o, "wide", 0)
		expect(t, readers[i], "subscribed")
	}
	w := r.h.workers[0]
	reached, proceed := make(chan struct{}), make(chan struct{})
	w.put(item{kind: settle, reply: func() []byte { // in the worker's goroutine, which goes on with what follows at once: as if the channel were busy and its writes dear
		close(reached)
		<-proceed
		a := w.channels["wide"]
		a.last, a.gap, w.schedule.cost = time.Now(), time.Millisecond, time.Millisecond
		return nil
	}})
	<-reached
	r.publish("wide", 1)
	s := r.enter(owners[7], "narrow", 0)
	start := time.Now()
	close(proceed)
	expect(t, readers[7], "wide 1 x", "subscribed")
	for i, rd := range readers {
		if i != 7 {
			expect(t, rd, "wide 1 x")
		}
	}
	if took := time.Since(start); took < paceMost/2 {
		t.Errorf("nobody waited: all was read after %v", took)
	}
	r.h.Exit(s, nil)
}

// TestADeliveryAllocatesNothing pins the path from the inbox to the sockets: whatever a publication costs, it is not paid once a subscriber.
func TestADeliveryAllocatesNothing(t *testing.T) {
	r := newRig(t, 1)
	h := New(Options{Encoder: r.enc, Meter: r.meter, Workers: 1}) // not run: the test is its worker
	w := h.workers[0]
	for i := range 2 * wideLeast {
		o, _ := r.dial()
		var err error
		if o.conn, err = h.NewConn(o.conn.out.tcp, 0, o); err != nil {
			t.Fatal(err)
		}
		h.Enter(NewSubscription(o.conn, fmt.Sprint("narrow", i), Wishes{}), bus.Position{Epoch: "e"}, nil)
		h.Enter(NewSubscription(o.conn, "wide", Wishes{}), bus.Position{Epoch: "e"}, nil)
	}
	frame := []byte("f\n")
	var batch []item
	work := func() {
		for more := true; more; {
			batch, more = w.round(batch, time.Now())
			w.schedule.till = time.Time{}
			more = w.flush() || more
		}
	}
	offset := uint64(0)
	publish := func() {
		offset++
		for _, channel := range []string{"wide", "narrow3"} {
			h.spread(channel, item{kind: publication, channel: channel, epoch: "e", offset: offset}, func(Format) []byte { return frame })
		}
		work()
	}
	work()
	publish()
	before := r.meter.delivered.Load()
	const runs = 100
	if n := testing.AllocsPerRun(runs, publish); n > 0 {
		t.Errorf("%v allocations for a publication to %d subscribers and one to a single one, want none", n, 2*wideLeast)
	}
	if got, want := r.meter.delivered.Load()-before, int64((runs+1)*(2*wideLeast+1)); got != want {
		t.Errorf("%d deliveries, want %d", got, want)
	}
}
