package hub

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// lines encodes a publication as one line of text.
type lines struct{ encoded atomic.Int64 }

func (l *lines) Publication(f Format, channel, _ string, p *bus.Publication) []byte {
	l.encoded.Add(1)
	if p.Binary && f == 0 {
		return nil
	}
	return fmt.Appendf(nil, "%s %d %s\n", channel, p.Offset, p.Data)
}

func (l *lines) Member(_ Format, channel string, joined bool, i bus.ClientInfo) []byte {
	return fmt.Appendf(nil, "%s %s %v\n", channel, i.Client, joined)
}

type counts struct{ delivered, slow atomic.Int64 }

func (c *counts) Delivered(_ string, n int, _ time.Duration) { c.delivered.Add(int64(n)) }
func (c *counts) SlowConsumer()                              { c.slow.Add(1) }

type owner struct {
	conn *Conn
	lost chan *Subscription
	slow chan struct{}
	// unfit has room for more than one, which must not come.
	unfit chan *Subscription
}

func (o *owner) Lost(s *Subscription)  { o.lost <- s }
func (o *owner) Slow()                 { close(o.slow) }
func (o *owner) Unfit(s *Subscription) { o.unfit <- s }

type rig struct {
	t     *testing.T
	h     *Hub
	enc   *lines
	meter *counts
	ln    *net.TCPListener
}

func newRig(t *testing.T, workers int) *rig {
	t.Helper()
	r := &rig{t: t, enc: &lines{}, meter: &counts{}}
	r.h = New(Options{Encoder: r.enc, Meter: r.meter, Workers: workers, Window: time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.h.Run(ctx) }()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r.ln = ln
	t.Cleanup(func() {
		ln.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := r.h.QueuedBytes(); n != 0 {
			t.Errorf("%d bytes counted as queued after the end", n)
		}
	})
	return r
}

// dial makes a connection: the hub's side, and the client's to read from.
func (r *rig) dial() (*owner, *net.TCPConn) {
	r.t.Helper()
	return r.dialIn(0)
}

func (r *rig) dialIn(f Format) (*owner, *net.TCPConn) {
	r.t.Helper()
	client, err := net.DialTCP("tcp", nil, r.ln.Addr().(*net.TCPAddr))
	if err != nil {
		r.t.Fatal(err)
	}
	server, err := r.ln.AcceptTCP()
	if err != nil {
		r.t.Fatal(err)
	}
	server.SetWriteBuffer(16 << 10)
	client.SetReadBuffer(16 << 10)
	o := &owner{lost: make(chan *Subscription, 16), slow: make(chan struct{}), unfit: make(chan *Subscription, 16)}
	if o.conn, err = r.h.NewConn(server, f, o); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		client.Close()
		o.conn.Close(time.Second)
		server.Close()
	})
	client.SetReadDeadline(time.Now().Add(time.Minute))
	return o, client
}

func (r *rig) enter(o *owner, channel string, top uint64) *Subscription {
	s := NewSubscription(o.conn, channel, Wishes{Members: true})
	r.h.Enter(s, bus.Position{Epoch: "e", Offset: top}, func() []byte { return []byte("subscribed\n") })
	return s
}

func (r *rig) publish(channel string, offsets ...uint64) {
	for _, o := range offsets {
		r.h.Publication(channel, "e", &bus.Publication{Offset: o, Data: []byte("x")})
	}
}

func expect(t *testing.T, rd *bufio.Reader, want ...string) {
	t.Helper()
	for _, w := range want {
		got, err := rd.ReadString('\n')
		if err != nil || got != w+"\n" {
			t.Fatalf("read %q (%v), want %q", got, err, w)
		}
	}
}

func TestReplyThenPublicationsThenFarewell(t *testing.T) {
	r := newRig(t, 2)
	o, client := r.dial()
	rd := bufio.NewReader(client)
	s := r.enter(o, "c", 5)
	r.publish("c", 6, 7)
	r.h.Exit(s, func() []byte { return []byte("unsubscribed\n") })
	r.publish("c", 8)
	r.enter(o, "other", 0)
	expect(t, rd, "subscribed", "c 6 x", "c 7 x", "unsubscribed", "subscribed")
}

func TestEverybodyGetsEverythingOnceAndInOrder(t *testing.T) {
	const clients, publications = 200, 500
	r := newRig(t, 4)
	var wg sync.WaitGroup
	for i := range clients {
		o, client := r.dial()
		r.enter(o, "c", 0)
		wg.Go(func() {
			rd := bufio.NewReader(client)
			rd.ReadString('\n')
			for n := 1; n <= publications; n++ {
				line, err := rd.ReadString('\n')
				if want := fmt.Sprintf("c %d x\n", n); err != nil || line != want {
					t.Errorf("client %d read %q (%v), want %q", i, line, err, want)
					return
				}
			}
		})
	}
	for n := uint64(1); n <= publications; n++ {
		r.publish("c", n)
	}
	wg.Wait()
	if n := r.enc.encoded.Load(); n != publications {
		t.Errorf("encoded %d times, want once a publication (%d)", n, publications)
	}
}

// A client that was on a node that had heard more than this one's feed.
func TestASubscriptionAheadOfTheFeedGetsNothingTwice(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	r.enter(o, "c", 10)
	r.publish("c", 6, 7, 8, 9, 10, 11)
	expect(t, bufio.NewReader(client), "subscribed", "c 11 x")
}

// Unsubscribing and subscribing again under a running fan-out.
func TestASecondSubscriptionStartsAtItsOwnPosition(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	s := r.enter(o, "c", 1)
	r.publish("c", 2)
	r.h.Exit(s, nil)
	r.publish("c", 3)
	r.enter(o, "c", 3)
	r.publish("c", 4)
	expect(t, bufio.NewReader(client), "subscribed", "c 2 x", "subscribed", "c 4 x")
}

func TestAHoleIsNeverDeliveredOver(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	s := r.enter(o, "c", 1)
	r.publish("c", 3)
	if got := <-o.lost; got != s {
		t.Fatal("another subscription was lost")
	}
	r.publish("c", 4)
	r.h.Exit(s, func() []byte { return []byte("lost\n") })
	expect(t, bufio.NewReader(client), "subscribed", "lost")
}

func TestLossIsAnnouncedOnceAndNothingComesBetween(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	s := r.enter(o, "c", 1)
	r.h.Lost("c")
	r.h.Lost("c")
	r.publish("c", 2)
	if got := <-o.lost; got != s {
		t.Fatal("another subscription was lost")
	}
	r.h.Exit(s, func() []byte { return []byte("lost\n") })
	r.enter(o, "c", 2)
	r.publish("c", 3)
	expect(t, bufio.NewReader(client), "subscribed", "lost", "subscribed", "c 3 x")
	select {
	case <-o.lost:
		t.Error("announced twice")
	default:
	}
}

func TestMembersAreToldToThoseWhoAsked(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	r.enter(o, "c", 0)
	quiet, other := r.dial()
	r.h.Enter(NewSubscription(quiet.conn, "c", Wishes{}), bus.Position{Epoch: "e"}, nil)
	r.h.Member("c", true, bus.ClientInfo{Client: "x"})
	r.publish("c", 1)
	expect(t, bufio.NewReader(client), "subscribed", "c x true", "c 1 x")
	expect(t, bufio.NewReader(other), "c 1 x")
}

// An inbox takes what fits, and not a byte more; what didn't fit is told once, to every channel's subscribers that it was for.
func TestAnInboxThatOverflowsIsAnnounced(t *testing.T) {
	frame := len("c 1 x\n")
	for _, c := range []struct {
		room int
		lost bool
	}{{3 * (itemBytes + frame), false}, {3*(itemBytes+frame) - 1, true}} {
		r := newRig(t, 1)
		r.h.inboxBytes = c.room
		o, client := r.dial()
		rd := bufio.NewReader(client)
		s := r.enter(o, "c", 0)
		r.enter(o, "calm", 0)
		expect(t, rd, "subscribed", "subscribed")
		busy, release := make(chan struct{}), make(chan struct{})
		r.h.Enter(NewSubscription(o.conn, "busy", Wishes{}), bus.Position{}, func() []byte { close(busy); <-release; return []byte("busy\n") })
		<-busy // the worker has emptied its inbox and is stuck
		r.publish("c", 1, 2, 3)
		close(release)
		expect(t, rd, "busy", "c 1 x", "c 2 x")
		if !c.lost {
			expect(t, rd, "c 3 x")
			r.publish("c", 4)
			expect(t, rd, "c 4 x")
			continue
		}
		select {
		case lost := <-o.lost:
			if lost != s {
				t.Errorf("%s was announced", lost.Channel())
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a hole without a word")
		}
		r.publish("calm", 1)
		expect(t, rd, "calm 1 x")
		if n := r.h.Spilt(); n != 1 {
			t.Errorf("%d spilt, want 1", n)
		}
	}
}

func TestDiscardedFramesAreNeverSeen(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	rd := bufio.NewReader(client)
	o.conn.Cork()
	o.conn.Send([]byte("held\n"))
	o.conn.Discard()
	if n := o.conn.Waiting(); n != 0 {
		t.Errorf("%d bytes are waiting", n)
	}
	o.conn.Send([]byte("after\n"))
	expect(t, rd, "after")
}

func TestCorkedFramesComeAfterTheFirst(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	o.conn.Cork()
	r.enter(o, "c", 0)
	r.publish("c", 1)
	for r.meter.delivered.Load() == 0 {
		time.Sleep(time.Millisecond) // until the worker has queued it behind the cork
	}
	o.conn.Uncork([]byte("connected\n"))
	r.publish("c", 2)
	expect(t, bufio.NewReader(client), "connected", "subscribed", "c 1 x", "c 2 x")
}

// One client stops reading. It is closed as slow when its queue is full, at the documented bound; the others get everything meanwhile.
func TestAStallerIsClosedAndDelaysNobody(t *testing.T) {
	r := newRig(t, 1)
	stalled, _ := r.dial()
	r.enter(stalled, "c", 0)
	o, client := r.dial()
	r.enter(o, "c", 0)
	rd := bufio.NewReaderSize(client, 1<<20)
	expect(t, rd, "subscribed")
	data := bytes.Repeat([]byte("y"), 32<<10)
	total := 0
	for n := uint64(1); ; n++ {
		r.h.Publication("c", "e", &bus.Publication{Offset: n, Data: data})
		expect(t, rd, fmt.Sprintf("c %d %s", n, data))
		total += len(data)
		select {
		case <-stalled.slow:
		default:
			if total > 4*limit.QueueBytes {
				t.Fatal("the staller was never closed")
			}
			continue
		}
		break
	}
	if total < limit.QueueBytes {
		t.Errorf("closed after %d bytes, before the bound of %d", total, limit.QueueBytes)
	}
	if n := r.meter.slow.Load(); n != 1 {
		t.Errorf("%d slow consumers counted", n)
	}
	stalled.conn.Finish([]byte("goodbye\n"))
}

// One that asked for the newest is dropped from the channel at half the bound, and its connection lives on.
func TestAStallerThatWantsTheNewestLosesTheChannelOnly(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	s := NewSubscription(o.conn, "c", Wishes{Newest: true})
	r.h.Enter(s, bus.Position{Epoch: "e"}, nil)
	data := bytes.Repeat([]byte("y"), 32<<10)
	published := 0
	for lost := false; !lost; {
		wait := 5 * time.Millisecond
		if published < 4*limit.QueueBytes/len(data) {
			published++
			r.h.Publication("c", "e", &bus.Publication{Offset: uint64(published), Data: data})
		} else {
			wait = 30 * time.Second // the worker may be behind
		}
		select {
		case got := <-o.lost:
			if lost = true; got != s {
				t.Fatal("another subscription was lost")
			}
		case <-o.slow:
			t.Fatal("the connection was closed")
		case <-time.After(wait):
			if wait > time.Second {
				t.Fatal("never lost")
			}
		}
	}
	r.h.Exit(s, func() []byte { return []byte("lost\n") })
	rd := bufio.NewReaderSize(client, 1<<20)
	for n := 1; ; n++ {
		line, err := rd.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "lost\n" {
			if n > published {
				t.Error("nothing was dropped")
			}
			return
		}
		if want := fmt.Sprintf("c %d ", n); line[:len(want)] != want {
			t.Fatalf("read %.20q, want %q", line, want)
		}
	}
}

func TestTheQueueTakesItsBoundAndNotAByteMore(t *testing.T) {
	r := newRig(t, 1)
	o, _ := r.dial()
	o.conn.Cork() // nothing is written: what is queued stays queued
	o.conn.Send(make([]byte, limit.QueueBytes))
	select {
	case <-o.slow:
		t.Fatal("closed at the bound")
	default:
	}
	o.conn.Send([]byte{0})
	select {
	case <-o.slow:
	case <-time.After(20 * time.Second):
		t.Fatal("not closed past the bound")
	}
}

// What is partly written is finished, what waits is dropped, and the goodbye comes after: the stream stays whole.
func TestFinishKeepsTheStreamWhole(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	frame := append(bytes.Repeat([]byte("z"), 99), '\n')
	const frames = 8000 // 800 kB: more than the kernel takes
	for range frames {
		o.conn.Send(frame)
	}
	o.conn.Finish([]byte("goodbye\n"))
	o.conn.Send([]byte("after\n"))
	rd := bufio.NewReader(client)
	for n := 0; ; n++ {
		line, err := rd.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		if string(line) == "goodbye\n" {
			if n == frames {
				t.Error("nothing was dropped: the socket took it all")
			}
			break
		}
		if !bytes.Equal(line, frame) {
			t.Fatalf("frame %d is broken: %q", n, line)
		}
	}
	client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if line, err := rd.ReadString('\n'); err == nil {
		t.Errorf("read %q after the goodbye", line)
	}
}

func TestFramesOfManyGoroutinesStayWhole(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	// The server's side still fills. With a window smaller than a segment the kernel sends by its probes alone, one in 200 ms, or in seconds when it is slow.
	client.SetReadBuffer(1 << 20)
	const writers, frames = 8, 100 // 570 kB: under the queue's bound
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			frame := append(bytes.Repeat([]byte{byte('a' + w)}, 200*w+10), '\n')
			for range frames {
				o.conn.Send(frame)
			}
		})
	}
	rd := bufio.NewReader(client)
	for n := range writers * frames {
		line, err := rd.ReadBytes('\n')
		if err != nil {
			t.Fatalf("after %d: %v", n, err)
		}
		if w := int(line[0] - 'a'); len(line) != 200*w+11 || bytes.Count(line, line[:1]) != len(line)-1 {
			t.Fatalf("broken frame of %d bytes", len(line))
		}
	}
	wg.Wait()
}

// The delivery path allocates nothing per connection.
func TestDeliveryAllocations(t *testing.T) {
	r := newRig(t, 1)
	o, client := r.dial()
	go func() {
		var sink [4096]byte
		for {
			if _, err := client.Read(sink[:]); err != nil {
				return
			}
		}
	}()
	frame := []byte("0123456789")
	if n := testing.AllocsPerRun(1000, func() { o.conn.Send(frame) }); n > 0 {
		t.Errorf("%v allocations a frame, want none", n)
	}
}
