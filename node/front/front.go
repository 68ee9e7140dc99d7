// Package front answers plain HTTP/1.1 requests that have come whole, and gives every other connection, untouched, to a net/http server behind it.
//
// net/http has for each connection a goroutine whose stack grows with the first request, two buffers, a reader in the background that waits for
// the client to go, and contexts that tell of it. Of a connect to a WebSocket that was almost half of a node's work, and of a small publication by HTTP more
// than that of the publication. Here a connection at rest is a goroutine of 2 KiB that waits for bytes, and a request is parsed by
// http.ReadRequest from what has come, without any of these.
//
// What is answered here is the narrow case that costs: one request, by one of the lines that were asked for, in one piece, of ordinary bytes. What is
// longer, slower, pipelined, folded, chunked, of another version or wrong in any way is net/http's, from its first byte, and so is all that follows on
// its connection: there is no second opinion on what HTTP is.
package front

import (
	"bufio"
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"tideline/node/hands"
)

const (
	// RequestBytes is the longest request, head and body, that is answered here.
	RequestBytes = 8 << 10
	// quietTime is how long a connection that has been answered keeps its goroutine and buffers for the next request.
	quietTime = time.Second
	// AnswerTimeout is how long an answer may take to go to a client that is slow to read it, unless the handler sets a deadline.
	AnswerTimeout = 30 * time.Second
)

// Options of Listen; all are required.
type Options struct {
	// Handler is the one that the server behind has. A request's context doesn't end when its client goes. There is no flushing: an answer
	// goes out whole when the handler returns.
	Handler http.Handler
	// Lines are how requests begin that are answered here: "POST /api/".
	Lines []string
	// First and Idle are how long a connection may be silent before its first request, and between two.
	First, Idle time.Duration
	Log         *slog.Logger
}

// Front is a net.Listener for the server behind it: Accept answers the connections that it is to serve. It is safe for concurrent use.
type Front struct {
	listener net.Listener
	o        Options
	hands    *hands.Hands[*conn]
	others   chan net.Conn
	failures chan error    // of accepting
	over     chan struct{} // closed by Close
	running  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	resting map[*conn]struct{}
}

// conn is a connection that is Front's: at rest, or with a request that is being answered.
type conn struct {
	*net.TCPConn
	raw    syscall.RawConn
	remote string

	// These are wait's.
	into []byte
	n    int
	look func(fd uintptr) bool
}

// Listen takes connections from a listener of TCP, which is Front's from now on, until Close. Wait must follow.
func Listen(l net.Listener, o Options) *Front {
	f := &Front{listener: l, o: o, others: make(chan net.Conn), failures: make(chan error), over: make(chan struct{}), resting: map[*conn]struct{}{}}
	f.hands = hands.New(f.serve)
	f.running.Go(f.accept)
	return f
}

// Addr implements net.Listener.
func (f *Front) Addr() net.Addr { return f.listener.Addr() }

// Accept implements net.Listener.
func (f *Front) Accept() (net.Conn, error) {
	select {
	case c := <-f.others:
		return c, nil
	case err := <-f.failures:
		return nil, err
	case <-f.over:
		return nil, net.ErrClosed
	}
}

// Close ends the listener and the connections at rest. Requests that are being answered go on, for which Wait waits.
func (f *Front) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	f.closed = true
	close(f.over)
	for c := range f.resting {
		c.Close()
	}
	return f.listener.Close()
}

// Wait returns after Close, when the last request has been answered. It is called once.
func (f *Front) Wait() {
	f.running.Wait()
	f.hands.End()
}

// accept ends with the listener. An error is the server's behind to judge: one that passes makes it wait before it asks again.
func (f *Front) accept() {
	for {
		nc, err := f.listener.Accept()
		if err != nil {
			select {
			case f.failures <- err:
			case <-f.over:
				return
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		tcp, ok := nc.(*net.TCPConn)
		if !ok {
			f.pass(nc)
			continue
		}
		raw, err := tcp.SyscallConn()
		if err != nil {
			tcp.Close()
			continue
		}
		f.running.Add(1)
		f.rest(&conn{TCPConn: tcp, raw: raw}, f.o.First)
	}
}

// pass gives a connection to the server behind.
func (f *Front) pass(nc net.Conn) {
	select {
	case f.others <- nc:
	case <-f.over:
		nc.Close()
	}
}

// drop closes a connection.
func (f *Front) drop(c *conn) {
	c.Close()
	f.running.Done()
}

// rest lets a connection wait for a request.
func (f *Front) rest(c *conn, most time.Duration) {
	if !f.quiet(c, most) {
		f.drop(c)
		return
	}
	go f.await(c)
}

// quiet notes that a connection waits for a request, for so long; false: it has no more to wait for.
func (f *Front) quiet(c *conn, most time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || c.SetReadDeadline(time.Now().Add(most)) != nil {
		return false
	}
	f.resting[c] = struct{}{}
	return true
}

// await is all that runs for a connection at rest. It must stay shallow: a goroutine's stack never shrinks below 4 KiB once it has been that large.
func (f *Front) await(c *conn) {
	err := c.raw.Read(hands.Readable)
	f.rouse(c)
	if err != nil { // its time is over, or Close
		f.drop(c)
		return
	}
	f.hands.Do(c)
}

func (f *Front) rouse(c *conn) {
	f.mu.Lock()
	delete(f.resting, c)
	f.mu.Unlock()
}

// scratch is what answering one request needs.
type scratch struct {
	in     [RequestBytes + 1]byte
	bytes  bytes.Reader
	reader *bufio.Reader // of bytes
	writer *bufio.Writer // for who takes the connection over; nothing is behind it
	header http.Header   // of the answer
	out    bytes.Buffer
	body   bytes.Buffer
}

var pool = sync.Pool{New: func() any {
	return &scratch{reader: bufio.NewReader(nil), writer: bufio.NewWriter(nil), header: http.Header{}}
}}

// keptBytes is the largest buffer of answers that is kept for the next one.
const keptBytes = 64 << 10

// serve answers requests until the connection is quiet, taken over, passed on or at its end.
func (f *Front) serve(c *conn) {
	s := pool.Get().(*scratch)
	defer func() {
		clear(s.header)
		if s.body.Cap() <= keptBytes && s.out.Cap() <= keptBytes {
			pool.Put(s)
		}
	}()
	if c.wait(s.in[:]) != nil { // it is readable
		f.drop(c)
		return
	}
	for f.one(c, s) {
		// Who asks often stays on this goroutine.
		if !f.quiet(c, quietTime) {
			f.drop(c)
			return
		}
		err := c.wait(s.in[:])
		f.rouse(c)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			f.rest(c, f.o.Idle)
			return
		case err != nil:
			f.drop(c)
			return
		}
	}
}

// one answers one request; false: the connection is no more, or not Front's.
func (f *Front) one(c *conn, s *scratch) (more bool) {
	if c.n == 0 { // the client has gone
		f.drop(c)
		return false
	}
	r := f.request(s, c.n)
	if r == nil {
		_ = c.SetReadDeadline(time.Time{}) // closed: whoever reads it notices
		f.pass(c.TCPConn)
		f.running.Done()
		return false
	}
	if c.take(s.in[:c.n]) != nil { // what was parsed; there was nothing behind it
		f.drop(c)
		return false
	}
	if c.remote == "" {
		c.remote = c.RemoteAddr().String()
	}
	r.RemoteAddr = c.remote
	clear(s.header)
	w := &writer{c: c, s: s, header: s.header, close: r.Close}
	ok := f.handle(w, r)
	w.close = w.close || f.ending()
	switch {
	case w.hijacked:
		f.running.Done()
		return false
	case !ok || w.end() != nil || w.close:
		f.drop(c)
		return false
	}
	return true
}

// handle reports whether the handler came to its end.
func (f *Front) handle(w http.ResponseWriter, r *http.Request) (ok bool) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			f.o.Log.Error("panic while answering a request", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f.o.Handler.ServeHTTP(w, r)
	return true
}

// wait waits until something has come, and reads it without taking it: an error says that time is over or the connection closed here. What
// has been read, which is nothing at the client's end, is n bytes.
func (c *conn) wait(into []byte) error {
	if c.look == nil {
		c.look = func(fd uintptr) (ready bool) {
			c.n, ready = hands.Peek(fd, c.into)
			return ready
		}
	}
	c.into = into
	defer func() { c.into = nil }()
	return c.raw.Read(c.look)
}

// take takes what wait has read, over the same bytes. The deadline of a wait that it has just met is no reason to lose a request.
func (c *conn) take(into []byte) error {
	err := net.ErrClosed
	_ = c.raw.Control(func(fd uintptr) { err = hands.Take(fd, into) }) // its error is that of a closed connection
	return err
}

// request parses the first n bytes of s.in; nil: that is not one request of those that are answered here, and nothing else.
func (f *Front) request(s *scratch, n int) *http.Request {
	data := s.in[:n]
	if n > RequestBytes || !slices.ContainsFunc(f.o.Lines, func(line string) bool { return n > len(line) && string(data[:len(line)]) == line }) {
		return nil
	}
	head := headBytes(data)
	if head == 0 {
		return nil
	}
	s.bytes.Reset(data)
	s.reader.Reset(&s.bytes)
	r, err := http.ReadRequest(s.reader)
	if err != nil || r.ProtoMajor != 1 || r.ProtoMinor != 1 || !plainHost(r.Host) || len(r.TransferEncoding) > 0 || r.Header.Get("Expect") != "" ||
		r.ContentLength < 0 || int64(head)+r.ContentLength != int64(n) {
		return nil
	}
	for name := range r.Header {
		if !plainName(name) {
			return nil
		}
	}
	return r
}

// headBytes is the length of a request's head with the empty line at its end; 0: it isn't whole, or has bytes that net/http should judge: control
// characters, such beyond ASCII, line ends of one character, lines that go on in the next one.
func headBytes(b []byte) int {
	for i := 0; i < len(b); i++ {
		if ' ' <= b[i] && b[i] <= '~' {
			continue
		}
		if b[i] != '\r' || i+1 == len(b) || b[i+1] != '\n' {
			return 0
		}
		if i > 0 && b[i-1] == '\n' {
			return i + 2
		}
		i++
		if i+1 < len(b) && b[i+1] == ' ' {
			return 0
		}
	}
	return 0
}

// plainName is true for names of letters, digits and hyphens. net/http's server judges the others, which its parser leaves to it.
func plainName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return name != ""
}

// plainHost is true for names and addresses, with a port or without.
func plainHost(h string) bool {
	for i := range len(h) {
		switch c := h[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return h != ""
}

// ending is true after Close.
func (f *Front) ending() bool {
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}
