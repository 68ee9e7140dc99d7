package hub

import (
	"net"
	"time"
)

// Owner is the protocol side of a connection. Its methods are called from the hub's goroutines and must not block.
type Owner interface {
	// Lost says that a subscription has missed something and its time to be told has come. The hub keeps the subscription, which gets
	// nothing any more, until Exit.
	Lost(s *Subscription)
	// Slow says that the connection's queue is full; what was queued is dropped, and the connection must be closed with 3008.
	Slow()
	// Unfit says that a publication can't be had in the connection's format. The subscription gets nothing any more; it is kept until Exit.
	Unfit(s *Subscription)
}

// Conn is one connection as the hub sees it: a place in a worker, a format, and a queue in front of a socket.
type Conn struct {
	owner  Owner
	format Format
	worker *worker
	place  place // the worker's
	out    outbox
}

// NewConn assigns a connection to a worker. tcp is written to without blocking, and closed by nobody but the caller.
func (h *Hub) NewConn(tcp *net.TCPConn, f Format, o Owner) (*Conn, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{owner: o, format: f, worker: h.workers[int(h.next.Add(1))%len(h.workers)]}
	c.out = outbox{tcp: tcp, raw: raw, total: h.queued, limit: h.queueBytes, slow: func() { h.meter.SlowConsumer(); o.Slow() }}
	return c, nil
}

// Send queues a frame and writes what the socket takes now. It never blocks. Frames are shared: they must not be changed after.
func (c *Conn) Send(frame []byte) {
	c.out.queue(frame)
	c.out.flush()
}

// Cork holds back what is queued until Uncork, which puts first in front of it: a connect reply goes before publications of the
// channels that it names.
func (c *Conn) Cork() { c.out.cork() }

// Uncork ends Cork.
func (c *Conn) Uncork(first []byte) { c.out.uncork(first) }

// UncorkWith is Uncork without writing: what comes next is written with it. Flush writes it at once.
func (c *Conn) UncorkWith(first []byte) { c.out.release(first) }

// Flush writes what is queued and the socket takes now. It never blocks.
func (c *Conn) Flush() { c.out.flush() }

// Discard ends Cork and drops what was held back.
func (c *Conn) Discard() { c.out.discard() }

// Waiting is how many bytes are queued and not yet written.
func (c *Conn) Waiting() int { return c.out.waiting() }

// Finish drops what is queued, but for a frame that is partly written, queues last and takes nothing after it. Only the first call counts.
func (c *Conn) Finish(last []byte) { c.out.finish(last) }

// Close waits for at most the given time until everything is written or the socket fails, then ends the connection's flusher
// and gives queued bytes back. With bytes left, the socket is set to reset when it is closed. The caller closes the socket next.
func (c *Conn) Close(wait time.Duration) { c.out.close(wait) }
