package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// stream is one channel's truth: a Redis that the tests steer.
type stream struct {
	mu      sync.Mutex
	epoch   string
	top     uint64
	first   uint64 // oldest offset that history still holds
	away    bool
	reads   int
	removed uint64 // offset up to which history was removed
	present map[string]bus.ClientInfo
	slow    time.Duration // of reading who is present
	// during runs inside the next read, after its answer was fixed.
	during func()
}

func (s *stream) answer() (bus.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return bus.Position{}, bus.ErrUnavailable
	}
	return bus.Position{Epoch: s.epoch, Offset: s.top}, nil
}

func (s *stream) then() {
	s.mu.Lock()
	f := s.during
	s.during = nil
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

func (s *stream) Tops(_ context.Context, names []string) ([]bus.Top, []error) {
	tops, errs := make([]bus.Top, len(names)), make([]error, len(names))
	for i := range names {
		tops[i].Position, errs[i] = s.answer()
		s.set(func() { tops[i].Removed = s.removed })
	}
	s.then()
	return tops, errs
}

func (s *stream) Since(_ context.Context, name string, pos bus.Position) ([]bus.Publication, bus.Position, error) {
	top, err := s.answer()
	if err != nil {
		return nil, top, err
	}
	s.mu.Lock()
	s.reads++
	first := s.first
	s.mu.Unlock()
	defer s.then()
	time.Sleep(time.Millisecond) // virtual: a round trip
	if pos.Epoch != top.Epoch || pos.Offset+1 < first || pos.Offset > top.Offset {
		return nil, top, fmt.Errorf("since: %w", bus.ErrUnrecoverable)
	}
	var pubs []bus.Publication
	for o := pos.Offset + 1; o <= top.Offset; o++ {
		pubs = append(pubs, pub(o))
	}
	return pubs, top, nil
}

func (s *stream) Presence(context.Context, string) (map[string]bus.ClientInfo, error) {
	time.Sleep(s.slow) // virtual
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, bus.ErrUnavailable
	}
	return maps.Clone(s.present), nil
}

func (s *stream) set(f func()) { s.mu.Lock(); f(); s.mu.Unlock() }

func (s *stream) readCount() int { s.mu.Lock(); defer s.mu.Unlock(); return s.reads }

func pub(offset uint64) bus.Publication {
	return bus.Publication{Offset: offset, Data: fmt.Appendf(nil, `{"n":%d}`, offset)}
}

func heard(epoch string, offset uint64) bus.Message {
	return bus.Message{Kind: bus.KindPublication, Epoch: epoch, Publication: pub(offset)}
}

// recorder is a Sink, and the Subscriber that confirms at once.
type recorder struct {
	mu     sync.Mutex
	f      *Feed
	got    []string
	silent bool // confirmations are withheld
	subs   []string
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	r.got = append(r.got, fmt.Sprintf(format, args...))
	r.mu.Unlock()
}

func (r *recorder) Publication(_, epoch string, p *bus.Publication) { r.note("%s%d", epoch, p.Offset) }
func (r *recorder) Member(_ string, joined bool, i bus.ClientInfo) {
	r.note("%s %v", i.Client, joined)
}
func (r *recorder) Lost(string) { r.note("lost") }

func (r *recorder) Subscribe(name string) {
	r.mu.Lock()
	r.subs = append(r.subs, "+"+name)
	silent := r.silent
	r.mu.Unlock()
	if !silent {
		go r.f.Confirmed(name)
	}
}

func (r *recorder) Unsubscribe(name string) {
	r.mu.Lock()
	r.subs = append(r.subs, "-"+name)
	r.mu.Unlock()
}

func (r *recorder) want(t *testing.T, want ...string) {
	t.Helper()
	time.Sleep(10 * time.Millisecond) // virtual: more than the round trips of a repair
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if fmt.Sprint(r.got) != fmt.Sprint(want) {
		t.Errorf("delivered %v, want %v", r.got, want)
	}
	r.got = nil
}

// run plays a scene in a bubble of virtual time.
func run(t *testing.T, s *stream, scene func(t *testing.T, f *Feed, r *recorder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		f := New(Options{Source: s, Sink: r, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), JoinLeave: func(n string) bool { return n == "room" }})
		r.f = f
		f.Attach(r)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		scene(t, f, r)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func join(t *testing.T, f *Feed, name string, since *bus.Position) (j Joined) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit.CommandBudget)
	defer cancel()
	if err := f.Join(ctx, name, since, func(got Joined) { j = got }); err != nil {
		t.Fatal(err)
	}
	return j
}

func offsets(pubs []*bus.Publication) (all []uint64) {
	for _, p := range pubs {
		all = append(all, p.Offset)
	}
	return all
}

func TestWhatComesInOrderIsDeliveredOnce(t *testing.T) {
	run(t, &stream{epoch: "a", top: 5, first: 1}, func(t *testing.T, f *Feed, r *recorder) {
		if j := join(t, f, "c", nil); j.Top.Offset != 5 || j.Top.Epoch != "a" {
			t.Fatalf("joined at %+v", j.Top)
		}
		for _, o := range []uint64{5, 6, 6, 7, 4} {
			f.Heard("c", heard("a", o))
		}
		r.want(t, "a6", "a7")
	})
}

func TestPublicationsBeforeThePositionIsKnownAreParked(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		// The read answers 5; 6 and 7 are heard before the answer is there.
		s.set(func() { s.during = func() { f.Heard("c", heard("a", 6)); f.Heard("c", heard("a", 7)) } })
		join(t, f, "c", nil)
		r.want(t, "a6", "a7")
	})
}

func TestAGapIsReadFromTheStreamInOrder(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		s.set(func() { s.top = 9 })
		f.Heard("c", heard("a", 9))
		r.want(t, "a6", "a7", "a8", "a9")
		if st := f.Stats(); st.GapsRepaired != 1 || st.GapsAnnounced != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestAGapThatCannotBeReadIsAnnouncedAndDeliveryGoesOn(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		s.set(func() { s.top, s.first = 9, 9 })
		f.Heard("c", heard("a", 9))
		r.want(t, "lost")
		f.Heard("c", heard("a", 10))
		r.want(t, "a10")
	})
}

func TestANewEpochIsAnnouncedOnlyWhenRedisSaysSo(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		f.Heard("c", heard("old", 6)) // a late message of an epoch before
		r.want(t)
		f.Heard("c", heard("a", 6))
		s.set(func() { s.top = 6 })
		r.want(t, "a6")
		s.set(func() { s.epoch, s.top = "b", 1 })
		f.Heard("c", heard("b", 1))
		time.Sleep(retryMax) // virtual: the comparison that the late message brought about is in its pause
		r.want(t, "lost")
		f.Heard("c", heard("a", 7)) // the old epoch must not flip it back
		f.Heard("c", heard("b", 2))
		s.set(func() { s.top = 2 })
		time.Sleep(retryMax)
		r.want(t, "b2")
	})
}

// An epoch that begins while its predecessor's position is being read: what is heard of it must not be forgotten.
func TestAnEpochThatBeginsDuringAComparison(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		s.set(func() {
			s.during = func() {
				s.set(func() { s.epoch, s.top = "b", 1 })
				f.Heard("c", heard("b", 1))
			}
		})
		join(t, f, "c", nil)
		time.Sleep(retryMax) // virtual: a second comparison follows by itself
		r.want(t, "lost")
		f.Heard("c", heard("b", 2))
		r.want(t, "b2")
	})
}

func TestReconnectedSubscriptionsAreCompared(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		f.Interrupted("c")
		s.set(func() { s.top = 7 })
		f.Confirmed("c")
		r.want(t, "a6", "a7")
	})
}

func TestSilentLossIsFoundByThePositionCheck(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		s.set(func() { s.top = 6 }) // published, never heard
		time.Sleep(2 * limit.PositionCheckEvery)
		r.want(t, "a6")
	})
}

func TestJoinsWaitWhileTheSubscriptionIsNotConfirmed(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		f.Interrupted("c")
		ctx, cancel := context.WithTimeout(t.Context(), limit.CommandBudget)
		defer cancel()
		err := f.Join(ctx, "c", nil, func(Joined) { t.Error("joined") })
		if !errors.Is(err, bus.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
	})
}

func TestJoinsFailAtTheirDeadlineWhileRedisIsAway(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1, away: true}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		ctx, cancel := context.WithTimeout(t.Context(), limit.CommandBudget)
		defer cancel()
		if err := f.Join(ctx, "c", nil, func(Joined) {}); !errors.Is(err, bus.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		s.set(func() { s.away = false })
		time.Sleep(2 * retryMax)
		join(t, f, "c", nil)
	})
}

func TestRecoveryFromTheRing(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		for o := uint64(6); o <= 9; o++ {
			f.Heard("c", heard("a", o))
		}
		j := join(t, f, "c", &bus.Position{Epoch: "a", Offset: 7})
		if !j.Recovered || fmt.Sprint(offsets(j.Missed)) != "[8 9]" || j.Top.Offset != 9 {
			t.Errorf("recovered %v %v at %d", j.Recovered, offsets(j.Missed), j.Top.Offset)
		}
		if n := s.readCount(); n != 0 {
			t.Errorf("%d history reads, want none", n)
		}
	})
}

func TestRecoveryPastTheRingIsOneReadForMany(t *testing.T) {
	s := &stream{epoch: "a", top: 500, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		const clients = 2000
		var wg sync.WaitGroup
		bad := make(chan string, clients)
		for i := range clients {
			wg.Go(func() {
				from := uint64(400 + i%90)
				j := join(t, f, "c", &bus.Position{Epoch: "a", Offset: from})
				if !j.Recovered || len(j.Missed) != int(500-from) || j.Missed[0].Offset != from+1 {
					bad <- fmt.Sprintf("from %d: recovered %v, %d missed", from, j.Recovered, len(j.Missed))
				}
			})
		}
		wg.Wait()
		close(bad)
		for b := range bad {
			t.Error(b)
		}
		if n := s.readCount(); n > 3 {
			t.Errorf("%d history reads for %d clients", n, clients)
		} else {
			t.Logf("%d history reads for %d clients", n, clients)
		}
	})
}

func TestRecoveryMeetsLivePublicationsWithoutHoleOrRepetition(t *testing.T) {
	s := &stream{epoch: "a", top: 20, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		// While history is being read, 21 and 22 are published and heard.
		s.set(func() {
			s.during = func() {
				s.set(func() { s.top = 22 })
				f.Heard("c", heard("a", 21))
				f.Heard("c", heard("a", 22))
			}
		})
		j := join(t, f, "c", &bus.Position{Epoch: "a", Offset: 18})
		if !j.Recovered || fmt.Sprint(offsets(j.Missed)) != "[19 20 21 22]" || j.Top.Offset != 22 {
			t.Errorf("recovered %v %v at %d", j.Recovered, offsets(j.Missed), j.Top.Offset)
		}
	})
}

func TestRecoveryThatIsImpossibleIsSaid(t *testing.T) {
	s := &stream{epoch: "a", top: 20, first: 10}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		for _, since := range []bus.Position{{Epoch: "a", Offset: 3}, {Epoch: "b", Offset: 20}, {}, {Epoch: "a", Offset: 99}} {
			j := join(t, f, "c", &since)
			if j.Recovered || len(j.Missed) != 0 || j.Top != (bus.Position{Epoch: "a", Offset: 20}) {
				t.Errorf("%+v: %+v", since, j)
			}
		}
		if st := f.Stats(); st.Unrecovered != 4 {
			t.Errorf("stats %+v", st)
		}
	})
}

// The client comes from a node that heard more than this one has.
func TestAClientAheadIsAnsweredAfterTheNodeHasCaughtUp(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		s.set(func() { s.top = 10 }) // published; this node's connection lags
		j := join(t, f, "c", &bus.Position{Epoch: "a", Offset: 9})
		if !j.Recovered || fmt.Sprint(offsets(j.Missed)) != "[10]" || j.Top.Offset != 10 {
			t.Errorf("%v %v at %d", j.Recovered, offsets(j.Missed), j.Top.Offset)
		}
		r.want(t, "a6", "a7", "a8", "a9", "a10")
		for o := uint64(6); o <= 10; o++ {
			f.Heard("c", heard("a", o)) // now they arrive
		}
		r.want(t)
	})
}

func TestParkedPublicationsAreBounded(t *testing.T) {
	s := &stream{epoch: "a", top: 0, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		big := make([]byte, limit.RingBytes/4)
		s.set(func() {
			s.during = func() {
				for o := uint64(1); o <= 8; o++ {
					m := heard("a", o)
					m.Publication.Data = big
					f.Heard("c", m)
				}
				s.set(func() { s.top = 8 })
				fo := f.lookup("c")
				fo.mu.Lock()
				if fo.parkedSize > parkedBytes {
					t.Errorf("%d bytes parked", fo.parkedSize)
				}
				fo.mu.Unlock()
			}
		})
		join(t, f, "c", nil)
		time.Sleep(retryMax)
		r.want(t, "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8")
	})
}

func TestChannelsAreLeftAfterAGraceAndTakenUpAgain(t *testing.T) {
	s := &stream{epoch: "a", top: 1, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		f.Release("c")
		time.Sleep(limit.UnsubscribeGrace / 2)
		join(t, f, "c", nil) // within the grace: nothing was given up
		f.Release("c")
		time.Sleep(2 * limit.UnsubscribeGrace)
		s.set(func() { s.top = 3 })
		if j := join(t, f, "c", nil); j.Top.Offset != 3 {
			t.Errorf("top %d", j.Top.Offset)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if got := fmt.Sprint(r.subs); got != "[+c -c +c]" {
			t.Errorf("subscriptions %s", got)
		}
	})
}

func TestRingsAreBoundedTogether(t *testing.T) {
	s := &stream{epoch: "a", top: 0, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		big := make([]byte, limit.RingBytes-1000)
		channels := limit.RingsBytes/limit.RingBytes + 100
		for i := range channels {
			name := fmt.Sprint("c", i)
			join(t, f, name, nil)
			m := heard("a", 1)
			m.Publication.Data = big
			f.Heard(name, m)
		}
		time.Sleep(2 * time.Second)
		if n := f.ringBytes.Load(); n > limit.RingsBytes || n < limit.RingsBytes/2 {
			t.Errorf("rings hold %d bytes", n)
		}
		for i := range channels {
			f.Release(fmt.Sprint("c", i))
		}
		time.Sleep(2 * limit.UnsubscribeGrace)
		if n := f.ringBytes.Load(); n != 0 {
			t.Errorf("%d bytes counted after all channels are gone", n)
		}
	})
}

func TestMembersAreDeliveredOnceAndTheDifferenceAfterAGap(t *testing.T) {
	info := func(c string) bus.ClientInfo { return bus.ClientInfo{Client: c} }
	s := &stream{epoch: "a", present: map[string]bus.ClientInfo{"x": info("x")}}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "room", nil)
		synctest.Wait()
		f.Heard("room", bus.Message{Kind: bus.KindJoin, Info: info("x")}) // known already
		f.Heard("room", bus.Message{Kind: bus.KindJoin, Info: info("y")})
		f.Heard("room", bus.Message{Kind: bus.KindJoin, Info: info("y")}) // heard twice in a rotation
		r.want(t, "y true")
		f.Interrupted("room")
		s.set(func() { s.present = map[string]bus.ClientInfo{"y": info("y"), "z": info("z")} })
		f.Confirmed("room")
		r.want(t, "x false", "z true")
		f.Heard("room", bus.Message{Kind: bus.KindLeave, Info: info("z")})
		f.Heard("room", bus.Message{Kind: bus.KindLeave, Info: info("z")})
		r.want(t, "z false")
	})
}

// Whoever is answered before the members have been read would not hear of those who come in between.
func TestAJoinWaitsForTheFirstReadingOfTheMembers(t *testing.T) {
	s := &stream{epoch: "a", present: map[string]bus.ClientInfo{"x": {Client: "x"}}, slow: time.Second}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		start := time.Now()
		join(t, f, "room", nil)
		if waited := time.Since(start); waited < time.Second {
			t.Errorf("answered after %v, before the members were read", waited)
		}
		f.Heard("room", bus.Message{Kind: bus.KindJoin, Info: bus.ClientInfo{Client: "y"}})
		r.want(t, "y true")
	})
}

func TestAnOffsetWithoutAnEpoch(t *testing.T) {
	run(t, &stream{epoch: "a", top: 5, first: 1}, func(t *testing.T, f *Feed, _ *recorder) {
		if j := join(t, f, "c", &bus.Position{Offset: 3}); !j.Recovered || len(j.Missed) != 2 {
			t.Errorf("%+v", j)
		}
		if j := join(t, f, "c", &bus.Position{Offset: 9}); j.Recovered {
			t.Errorf("recovered from ahead: %+v", j)
		}
	})
}
