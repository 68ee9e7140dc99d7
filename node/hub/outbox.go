package hub

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tideline/shared/limit"
)

// gather is how many bytes of small frames are copied together into one write(2).
const gather = 16 << 10

// outbox is a bounded queue of whole frames in front of one socket. Whoever queues flushes: as much as the socket takes is written at
// once, by one goroutine at a time (the one that finds writing false; the others' frames are taken along). What the socket doesn't take
// waits for a flusher goroutine, which lives only as long as the socket is full.
type outbox struct {
	tcp   *net.TCPConn
	raw   syscall.RawConn
	total *atomic.Int64 // bytes queued on all connections
	limit int           // of bytes
	slow  func()

	mu      sync.Mutex
	frames  [][]byte
	offset  int // written bytes of frames[0]
	bytes   int // queued, not yet written
	writing bool
	corked  bool
	held    [][]byte // queued while corked
	last    bool     // nothing is taken any more
	parted  bool     // the last frame has been given
	failed  bool
	idle    chan struct{} // non-nil: closed when nothing is left to write
}

// queue appends a frame. When that would overfill the queue, everything that waits is dropped and slow is called.
func (o *outbox) queue(frame []byte) {
	o.mu.Lock()
	if o.last || o.failed {
		o.mu.Unlock()
		return
	}
	if o.bytes+len(frame) > o.limit {
		o.dropLocked()
		o.last = true
		o.mu.Unlock()
		o.slow()
		return
	}
	o.pushLocked(frame)
	o.mu.Unlock()
}

// waiting is how many bytes are queued.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

func (o *outbox) pushLocked(frame []byte) {
	if o.corked {
		o.held = append(o.held, frame)
	} else {
		o.frames = append(o.frames, frame)
	}
	o.bytes += len(frame)
	o.total.Add(int64(len(frame)))
}

// dropLocked drops whole frames. One that is partly written stays, or the stream would be broken; so does all that a
// write in progress may be holding, which is at most the gathered bytes or one frame.
func (o *outbox) dropLocked() {
	keep := 0
	if o.offset > 0 || o.writing {
		keep = min(1, len(o.frames))
	}
	if o.writing {
		for n := 0; keep < len(o.frames) && n+len(o.frames[keep]) <= gather; keep++ {
			n += len(o.frames[keep])
		}
	}
	dropped := 0
	for _, f := range o.frames[keep:] {
		dropped += len(f)
	}
	for _, f := range o.held {
		dropped += len(f)
	}
	o.bytes -= dropped
	o.total.Add(-int64(dropped))
	clear(o.frames[keep:])
	o.frames, o.held = o.frames[:keep], nil
}

func (o *outbox) cork() {
	o.mu.Lock()
	o.corked = true
	o.mu.Unlock()
}

func (o *outbox) uncork(first []byte) {
	o.release(first)
	o.flush()
}

// release is uncork without a flush.
func (o *outbox) release(first []byte) {
	o.mu.Lock()
	o.corked = false
	if !o.last {
		if first != nil {
			o.pushLocked(first)
		}
		o.frames = append(o.frames, o.held...)
		o.held = nil
	}
	o.mu.Unlock()
}

// discard ends cork without what was held back.
func (o *outbox) discard() {
	o.mu.Lock()
	o.corked = false
	for _, f := range o.held {
		o.bytes -= len(f)
		o.total.Add(-int64(len(f)))
	}
	o.held = nil
	o.mu.Unlock()
	o.flush()
}

func (o *outbox) finish(frame []byte) {
	o.flush() // what only waits for company goes, if the socket takes it
	o.mu.Lock()
	if o.failed || o.parted {
		o.mu.Unlock()
		return
	}
	o.parted = true
	if !o.last {
		o.dropLocked()
		o.last = true
	}
	o.corked = false
	if frame != nil {
		o.pushLocked(frame)
	}
	o.mu.Unlock()
	o.flush()
}

// flush writes until nothing is queued or the socket is full.
func (o *outbox) flush() {
	a := attempts.Get().(*attempt)
	o.flushWith(a)
	a.put()
}

// flushWith is flush for a goroutine with an attempt of its own.
func (o *outbox) flushWith(a *attempt) {
	o.mu.Lock()
	if o.writing || o.corked || o.failed || len(o.frames) == 0 {
		o.mu.Unlock()
		return
	}
	o.writing = true
	o.mu.Unlock()
	if o.write(a, false) {
		go func() { // ends when the socket has taken everything or has failed, at the latest limit.StallTimeout after its last progress
			a := attempts.Get().(*attempt)
			defer a.put()
			o.tcp.SetWriteDeadline(time.Now().Add(limit.StallTimeout))
			o.write(a, true)
		}()
	}
}

// write is run by whoever owns the write side. Without wait it returns true when the socket is full, still owning it; otherwise
// the ownership has been given back.
func (o *outbox) write(a *attempt, wait bool) (full bool) {
	for {
		o.mu.Lock()
		if len(o.frames) == 0 || o.failed {
			if wait { // before the ownership goes: the next flusher sets its own
				o.tcp.SetWriteDeadline(time.Time{})
			}
			o.writing = false
			o.idleLocked()
			o.mu.Unlock()
			return false
		}
		a.fill(o.frames, o.offset)
		o.mu.Unlock()
		a.wait = wait
		err := o.raw.Write(a.run)
		if err == nil {
			err = a.err
		}
		if a.n > 0 {
			o.wrote(a.n)
			if wait {
				o.tcp.SetWriteDeadline(time.Now().Add(limit.StallTimeout))
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, syscall.EAGAIN):
			return true
		default:
			o.fail()
			return false
		}
	}
}

// wrote accounts n bytes that the socket has taken.
func (o *outbox) wrote(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes -= n
	o.total.Add(-int64(n))
	done := 0
	for n > 0 {
		rest := len(o.frames[done]) - o.offset
		if n < rest {
			o.offset += n
			break
		}
		n -= rest
		o.offset = 0
		done++
	}
	kept := copy(o.frames, o.frames[done:])
	clear(o.frames[kept:])
	o.frames = o.frames[:kept]
	if kept == 0 && cap(o.frames) > 8 {
		o.frames = nil // idle connections keep no burst's array
	}
}

// fail ends the queue: the socket is broken, or has taken nothing for limit.StallTimeout. The reader learns of it by its own error.
func (o *outbox) fail() {
	o.mu.Lock()
	o.failed, o.last, o.writing = true, true, false
	o.total.Add(-int64(o.bytes))
	o.bytes, o.offset, o.frames, o.held = 0, 0, nil, nil
	o.idleLocked()
	o.mu.Unlock()
	o.tcp.SetReadDeadline(time.Unix(1, 0))
}

func (o *outbox) idleLocked() {
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

func (o *outbox) close(wait time.Duration) {
	o.flush()
	o.mu.Lock()
	o.last, o.corked = true, false
	var idle chan struct{}
	if o.writing {
		idle = make(chan struct{})
		o.idle = idle
	}
	o.mu.Unlock()
	if idle != nil {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-idle:
		case <-timer.C:
			o.mu.Lock()
			o.failed = true // first: a flusher that extends the deadline after this sees it before it waits again
			o.mu.Unlock()
			o.tcp.SetWriteDeadline(time.Unix(1, 0))
			<-idle
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes > 0 {
		o.tcp.SetLinger(0)
	}
	o.total.Add(-int64(o.bytes))
	o.bytes, o.offset, o.frames, o.held = 0, 0, nil, nil
	o.failed = true
}

// attempt is one write(2), with its arguments and results. It is pooled, and its method value with it, so that a write allocates nothing.
type attempt struct {
	buf  []byte // gathered frames
	data []byte // what to write: buf, or one large frame
	wait bool
	n    int
	err  error
	run  func(fd uintptr) bool
}

var attempts = sync.Pool{New: func() any { return newAttempt() }}

func newAttempt() *attempt {
	a := &attempt{buf: make([]byte, 0, gather)}
	a.run = a.do
	return a
}

func (a *attempt) put() {
	a.data = nil
	attempts.Put(a)
}

// fill takes as many frames as fit into the buffer, or the first one alone.
func (a *attempt) fill(frames [][]byte, offset int) {
	first := frames[0][offset:]
	if len(frames) == 1 || len(first)+len(frames[1]) > gather {
		a.data = first
		return
	}
	a.buf = append(a.buf[:0], first...)
	for _, f := range frames[1:] {
		if len(a.buf)+len(f) > gather {
			break
		}
		a.buf = append(a.buf, f...)
	}
	a.data = a.buf
}

// do is called by the runtime's poller; answering false waits until the socket can be written to.
func (a *attempt) do(fd uintptr) bool {
	for {
		a.n, a.err = syscall.Write(int(fd), a.data)
		if a.n < 0 {
			a.n = 0
		}
		if a.err != syscall.EINTR {
			return a.err != syscall.EAGAIN || !a.wait
		}
	}
}
