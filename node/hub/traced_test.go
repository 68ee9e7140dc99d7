package hub

import (
	"sync/atomic"
	"testing"

	"tideline/shared/bus"
)

// A publication with tags is asked about once, however many workers and sockets it goes to, and its end is told once, when all were written to.
func TestATracedPublicationEndsOnceWithItsFrames(t *testing.T) {
	r := newRig(t, 3)
	var asked, ended, frames atomic.Int64
	done := make(chan struct{}, 10)
	r.h.trace = func(channel string, p *bus.Publication) func(int) {
		asked.Add(1)
		if p.Tags["trace"] == "" {
			return nil
		}
		return func(n int) { ended.Add(1); frames.Add(int64(n)); done <- struct{}{} }
	}
	for range 7 {
		o, _ := r.dial()
		r.enter(o, "chat:a", 0)
	}
	publish := func(offset uint64, tags map[string]string) {
		r.h.Publication("chat:a", "e", &bus.Publication{Offset: offset, Data: []byte("x"), Tags: tags})
	}
	publish(1, nil)
	publish(2, map[string]string{"other": "x"})
	publish(3, map[string]string{"trace": "x"})
	<-done
	publish(4, map[string]string{"trace": "x"})
	<-done
	if asked.Load() != 3 || ended.Load() != 2 || frames.Load() != 14 {
		t.Errorf("asked %d times, %d ended, %d frames; want 3, 2, 14", asked.Load(), ended.Load(), frames.Load())
	}
	r.h.Publication("chat:nobody", "e", &bus.Publication{Offset: 1, Tags: map[string]string{"trace": "x"}})
	if ended.Load() != 2 {
		t.Error("a publication that goes nowhere ended")
	}
}

// What no longer fits into a worker's inbox ends as well.
func TestATracedPublicationThatIsDroppedEnds(t *testing.T) {
	r := newRig(t, 1)
	r.h.inboxBytes = 1 // nothing fits
	ends := make(chan int, 1)
	r.h.trace = func(string, *bus.Publication) func(int) { return func(n int) { ends <- n } }
	o, _ := r.dial()
	r.enter(o, "chat:a", 0)
	r.h.Publication("chat:a", "e", &bus.Publication{Offset: 1, Data: []byte("x"), Tags: map[string]string{"trace": "x"}})
	if n := <-ends; n != 0 {
		t.Errorf("%d frames were written", n)
	}
}
