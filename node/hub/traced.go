package hub

import "sync/atomic"

// traced is a publication on its way to a node's sockets, of whose end somebody wants to know. Nil is one that nobody asks about.
type traced struct {
	end     func(delivered int)
	left    atomic.Int32 // workers that have not written it yet
	written atomic.Int64 // frames
}

// done says that one worker has written n frames, or dropped it.
func (t *traced) done(n int) {
	if t == nil {
		return
	}
	t.written.Add(int64(n))
	if t.left.Add(-1) == 0 {
		t.end(int(t.written.Load()))
	}
}

// busyLocked counts the workers that have subscribers.
func (r *route) busyLocked() (n int32) {
	for i := range r.workers {
		if r.workers[i] != [Formats]int{} {
			n++
		}
	}
	return n
}
