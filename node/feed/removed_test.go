package feed

import (
	"fmt"
	"testing"
	"time"

	"tideline/shared/bus"
)

// recovers joins and leaves again, and says what came of the recovery.
func recovers(t *testing.T, f *Feed, offset uint64) string {
	t.Helper()
	j := join(t, f, "c", &bus.Position{Epoch: "a", Offset: offset})
	f.Release("c")
	return fmt.Sprint(j.Recovered, offsets(j.Missed))
}

func TestRemovedHistoryIsNotAnsweredFromTheRing(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		for o := uint64(6); o <= 9; o++ {
			f.Heard("c", heard("a", o))
		}
		s.set(func() { s.top = 9 })
		if got := recovers(t, f, 6); got != "true [7 8 9]" {
			t.Fatalf("before: %s", got)
		}
		reads := s.readCount()
		s.set(func() { s.removed, s.first = 8, 9 })
		f.Heard("c", bus.Message{Kind: bus.KindRemoved, Epoch: "a", Publication: bus.Publication{Offset: 8}})
		for offset, want := range map[uint64]string{5: "false []", 7: "false []", 8: "true [9]", 9: "true []"} {
			if got := recovers(t, f, offset); got != want {
				t.Errorf("from %d: %s, want %s", offset, got, want)
			}
		}
		f.Heard("c", heard("a", 10)) // whoever is subscribed goes on
		r.want(t, "a6", "a7", "a8", "a9", "a10")
		if n := s.readCount(); n != reads {
			t.Errorf("%d reads of history for what is known to be gone", n-reads)
		}
		f.mu.Lock()
		ring := f.followers["c"].ring
		f.mu.Unlock()
		if n := f.ringBytes.Load(); len(ring.pubs) != 2 || ring.bytes != int(n) || ring.bytes != 2*entryBytes(ring.pubs[0])+1 {
			t.Errorf("the ring holds %v, %d bytes, %d in all", offsets(ring.pubs), ring.bytes, n)
		}
	})
}

// A node that did not hear of it learns it from the comparison before it answers the next recovery.
func TestRemovedHistoryIsFoundByAComparison(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		f.Heard("c", heard("a", 6))
		f.Interrupted("c")
		s.set(func() { s.top, s.removed, s.first = 6, 6, 7 })
		f.Confirmed("c")
		if got := recovers(t, f, 5); got != "false []" {
			t.Errorf("%s", got)
		}
		r.want(t, "a6")
	})
}

// A removal that is heard while a comparison from before it is under way isn't lost: what was parked with it isn't answered.
func TestRemovedHistoryHeardDuringAComparison(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		f.Interrupted("c")
		s.set(func() {
			s.epoch, s.top = "b", 0
			s.during = func() { // the answer that is on its way is from before
				f.Heard("c", heard("b", 1))
				f.Heard("c", heard("b", 2))
				s.set(func() { s.top, s.first, s.removed = 2, 3, 2 })
				f.Heard("c", bus.Message{Kind: bus.KindRemoved, Epoch: "b", Publication: bus.Publication{Offset: 2}})
				s.set(func() { s.during = func() { time.Sleep(time.Millisecond) } }) // the next one takes its time
			}
		})
		f.Confirmed("c")
		j := join(t, f, "c", &bus.Position{Epoch: "b"})
		if got := fmt.Sprint(j.Recovered, offsets(j.Missed)); got != "false []" {
			t.Errorf("%s", got)
		}
	})
}

// What a history read brings that began before the removal is neither answered nor kept.
func TestRemovedHistoryDropsAReadThatIsUnderWay(t *testing.T) {
	s := &stream{epoch: "a", top: 5, first: 1}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		s.set(func() {
			s.during = func() {
				s.set(func() { s.removed, s.first = 5, 6 })
				f.Heard("c", bus.Message{Kind: bus.KindRemoved, Epoch: "a", Publication: bus.Publication{Offset: 5}})
			}
		})
		if got := recovers(t, f, 2); got != "false []" {
			t.Errorf("%s", got)
		}
		if n := f.ringBytes.Load(); n != 0 {
			t.Errorf("%d bytes of what was removed are kept", n)
		}
	})
}

// Another epoch has another history: what was removed in the one before is no bound in it.
func TestRemovedHistoryEndsWithItsEpoch(t *testing.T) {
	s := &stream{epoch: "a", top: 9, first: 10, removed: 9}
	run(t, s, func(t *testing.T, f *Feed, r *recorder) {
		join(t, f, "c", nil)
		s.set(func() { s.epoch, s.top, s.first, s.removed = "b", 3, 1, 0 })
		f.Heard("c", heard("b", 3))
		time.Sleep(retryMax) // virtual
		j := join(t, f, "c", &bus.Position{Epoch: "b", Offset: 1})
		if got := fmt.Sprint(j.Recovered, offsets(j.Missed)); got != "true [2 3]" {
			t.Errorf("%s", got)
		}
	})
}
