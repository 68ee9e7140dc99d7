package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	readBuffer = 256 << 10
	// connectsAtOnce is how many connections are being made at a time.
	connectsAtOnce = 256
	// retryWithin bounds the random wait of a client before it connects again.
	retryWithin = 50 * time.Millisecond
	// sources is how many loopback addresses the connections come from, so that ports don't run out.
	sources = 8
)

// Options of New.
type Options struct {
	Dialect Dialect
	// Targets are the addresses of the server's processes; connection i goes to i mod their number, and to the others when that one is gone.
	Targets []netip.AddrPort
	Token   func(i int) string
	// Channel of connection i: its number and its name.
	Channel func(i int) (number uint16, name string)
	// Classes divide the connections for the latencies; nil puts all into class 0.
	Class func(i int) int
	// Reconnect: lost connections are made again. Without it a lost connection is an error.
	Reconnect bool
	// ReceiveBuffer of the sockets, in bytes; 0 leaves it to the kernel.
	ReceiveBuffer int
	// Start is what Place.Due counts from.
	Start time.Time
}

// Classes is the most classes there can be.
const Classes = 2

// Swarm is safe for concurrent use; everything that isn't fixed belongs to the goroutine of Run.
type Swarm struct {
	o     Options
	epoll int
	wake  [2]int // a pipe
	buf   []byte

	mu    sync.Mutex
	tasks []func()

	conns   []*conn
	byFD    map[int32]*conn
	pending []*conn // to be connected
	waiting []*conn // to be connected at their time
	opening int
	live    int
	verdict Verdict
	latency [Classes]Histogram
	lost    int   // connections
	failure error // the first
}

type state uint8

const (
	closed state = iota
	upgrading
	joining
	live
)

type conn struct {
	fd      int32
	index   int
	target  int
	class   int
	state   state
	stalled bool
	channel uint16
	name    string
	token   string
	rest    []byte // the beginning of a frame
	track   Track
	at      *Position // while joining: where it recovers from; then where it stood when it had joined
	heard   uint64    // publications since
	retryAt time.Time
}

// New makes a swarm without connections.
func New(o Options) (*Swarm, error) {
	s := &Swarm{o: o, buf: make([]byte, readBuffer), byFD: map[int32]*conn{}}
	var err error
	if s.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := syscall.Pipe2(s.wake[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return s, syscall.EpollCtl(s.epoll, syscall.EPOLL_CTL_ADD, s.wake[0], &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(s.wake[0])})
}

// Run works until ctx ends, and then closes everything.
func (s *Swarm) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, s.nudge)()
	events := make([]syscall.EpollEvent, 512)
	for ctx.Err() == nil {
		timeout := 1000
		if len(s.waiting) > 0 {
			timeout = 5
		}
		n, err := syscall.EpollWait(s.epoll, events, timeout)
		if err != nil && err != syscall.EINTR {
			s.fail(fmt.Errorf("epoll: %w", err))
			break
		}
		for _, e := range events[:max(n, 0)] {
			if c := s.byFD[e.Fd]; c != nil {
				s.readable(c)
			} else if int(e.Fd) == s.wake[0] {
				_, _ = syscall.Read(s.wake[0], s.buf) // it only wakes
			}
		}
		s.work()
	}
	for _, c := range s.conns {
		s.drop(c)
	}
	s.runTasks()
	_ = syscall.Close(s.epoll)
	_ = syscall.Close(s.wake[0])
	_ = syscall.Close(s.wake[1])
}

func (s *Swarm) nudge() { _, _ = syscall.Write(s.wake[1], []byte{0}) }

// do runs f in Run's goroutine and waits for it.
func (s *Swarm) do(f func()) {
	done := make(chan struct{})
	s.mu.Lock()
	s.tasks = append(s.tasks, func() { f(); close(done) })
	s.mu.Unlock()
	s.nudge()
	<-done
}

func (s *Swarm) runTasks() {
	s.mu.Lock()
	tasks := s.tasks
	s.tasks = nil
	s.mu.Unlock()
	for _, f := range tasks {
		f()
	}
}

func (s *Swarm) work() {
	s.runTasks()
	if len(s.waiting) > 0 {
		now, kept := time.Now(), s.waiting[:0]
		for _, c := range s.waiting {
			if now.Before(c.retryAt) {
				kept = append(kept, c)
			} else {
				s.pending = append(s.pending, c)
			}
		}
		s.waiting = kept
	}
	for len(s.pending) > 0 && s.opening < connectsAtOnce {
		c := s.pending[0]
		s.pending = s.pending[1:]
		if err := s.connect(c); err != nil {
			s.ended(c, err)
		}
	}
}

// Connect adds n connections and waits until they have subscribed. Publications are expected from number 0 of each channel on.
func (s *Swarm) Connect(ctx context.Context, n int) error {
	s.do(func() {
		for range n {
			c := &conn{index: len(s.conns)}
			c.channel, c.name = s.o.Channel(c.index)
			c.target = c.index % len(s.o.Targets)
			if s.o.Token != nil {
				c.token = s.o.Token(c.index)
			}
			if s.o.Class != nil {
				c.class = s.o.Class(c.index)
			}
			s.conns = append(s.conns, c)
			s.pending = append(s.pending, c)
		}
	})
	return s.AwaitLive(ctx)
}

// State is what a swarm looks like at a moment.
type State struct {
	Verdict Verdict
	// Live connections have subscribed. Lost counts connections that ended.
	Live, Lost int
	Failure    error
}

// Look answers the state.
func (s *Swarm) Look() (now State) {
	s.do(func() { now = State{s.verdict, s.live, s.lost, s.failure} })
	return now
}

// Latency answers a class's latencies since the last call of Reset.
func (s *Swarm) Latency(class int) (h Histogram) {
	s.do(func() { h = s.latency[class] })
	return h
}

// Reset forgets latencies and verdict. Publications are expected from number 0 on again.
func (s *Swarm) Reset() {
	s.do(func() {
		s.latency, s.verdict = [Classes]Histogram{}, Verdict{}
		for _, c := range s.conns {
			c.track = Track{}
		}
	})
}

// End answers the verdict when channel c had total(c) publications. It leaves the swarm as it is; stalled connections don't count.
func (s *Swarm) End(total func(channel uint16) uint32) (v Verdict) {
	s.do(func() {
		v = s.verdict
		for _, c := range s.conns {
			if !c.stalled {
				c.track.End(total(c.channel), &v)
			}
		}
	})
	return v
}

// Stall lets connection i stop reading.
func (s *Swarm) Stall(i int) {
	s.do(func() {
		c := s.conns[i]
		c.stalled = true
		_ = syscall.EpollCtl(s.epoll, syscall.EPOLL_CTL_DEL, int(c.fd), nil)
	})
}

// AwaitLive waits until all connections have subscribed.
func (s *Swarm) AwaitLive(ctx context.Context) error {
	for {
		done, now := false, State{}
		s.do(func() { done, now = s.live == len(s.conns), State{Live: s.live, Failure: s.failure} })
		switch {
		case now.Failure != nil:
			return now.Failure
		case done:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d connections are subscribed: %w", now.Live, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *Swarm) fail(err error) {
	if s.failure == nil {
		s.failure = err
	}
}

// connect makes the socket and sends the upgrade request. On the loopback a connect ends at once.
func (s *Swarm) connect(c *conn) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	c.fd, c.state = int32(fd), upgrading
	s.byFD[c.fd] = c
	s.opening++
	const bindNoPort = 24 // IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect
	to := s.o.Targets[c.target]
	steps := []func() error{
		func() error { return syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindNoPort, 1) },
		func() error {
			if s.o.ReceiveBuffer == 0 {
				return nil
			}
			return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, s.o.ReceiveBuffer)
		},
		func() error { return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) },
		func() error {
			return syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + c.index%sources)}})
		},
		func() error {
			return syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		},
		func() error { return syscall.SetNonblock(fd, true) },
		func() error {
			return syscall.EpollCtl(s.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: c.fd})
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("connect to %s: %w", to, err)
		}
	}
	return s.send(c, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", s.o.Dialect.Path(c.name), to))
}

// send writes what fits into any socket's buffer.
func (s *Swarm) send(c *conn, b []byte) error {
	n, err := syscall.Write(int(c.fd), b)
	if err == nil && n < len(b) {
		err = errors.New("socket buffer full")
	}
	return err
}

// drop closes the socket.
func (s *Swarm) drop(c *conn) {
	if c.state == closed {
		return
	}
	delete(s.byFD, c.fd)
	_ = syscall.Close(int(c.fd)) // epoll forgets it
	if c.state == live {
		s.live--
	} else {
		s.opening--
	}
	c.state, c.rest = closed, nil
}

// ended deals with a connection that is no more.
func (s *Swarm) ended(c *conn, why error) {
	was := c.state
	s.drop(c)
	if c.stalled {
		return // the server has given up on it, as it should
	}
	if was == live {
		s.lost++
	}
	if !s.o.Reconnect {
		s.fail(fmt.Errorf("connection %d: %w", c.index, why))
		return
	}
	if was == live && c.at != nil {
		c.at.Offset += c.heard
		c.heard = 0
	}
	c.target = (c.target + 1) % len(s.o.Targets)
	c.retryAt = time.Now().Add(rand.N(retryWithin))
	s.waiting = append(s.waiting, c)
}
