package redistest

import (
	"net"
	"sync"
)

// Proxy relays TCP connections to a target that can be changed, and breaks them on demand. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	done     sync.WaitGroup

	mu       sync.Mutex
	target   string
	conns    map[net.Conn]bool // the value: stalled
	refusing bool
	resumed  chan struct{} // closed when nothing is paused
	answers  bool          // only what comes from the target is paused
	closed   bool
	accepted int
}

// StartProxy starts a proxy to target ("host:port").
func StartProxy(t T, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}, resumed: make(chan struct{})}
	close(p.resumed)
	p.done.Go(p.accept)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL is what bus.Options.URL takes.
func (p *Proxy) URL() string { return "redis://" + p.Addr() }

// Target changes where new connections lead, as a DNS name does in a failover. Established ones stay.
func (p *Proxy) Target(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Stall makes the connections that are open now silent for good, as a network does that drops packets: they stay open, what is sent
// on them arrives nowhere. New connections work.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		p.conns[c] = true
	}
}

// Cut closes every connection and answers how many there were.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.conns) / 2
	for c := range p.conns {
		_ = c.Close()
	}
	return n
}

// Refuse closes new connections at once, until Refuse(false).
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = on
}

// Pause holds back all bytes in both directions until Resume; connections stay open.
func (p *Proxy) Pause() { p.pause(false) }

// PauseAnswers holds back what the target sends until Resume; what is sent to it arrives.
func (p *Proxy) PauseAnswers() { p.pause(true) }

func (p *Proxy) pause(answers bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = answers
	select {
	case <-p.resumed:
		p.resumed = make(chan struct{})
	default:
	}
}

// Resume ends a Pause or PauseAnswers.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resumeLocked()
}

func (p *Proxy) resumeLocked() {
	select {
	case <-p.resumed:
	default:
		close(p.resumed)
	}
}

// Accepted counts the connections that were relayed so far.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Close ends the proxy and its connections, and waits for its goroutines.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.resumeLocked()
	p.mu.Unlock()
	err := p.listener.Close()
	p.done.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.relay(c) })
	}
}

func (p *Proxy) relay(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	target, refusing := p.target, p.refusing
	p.mu.Unlock()
	if refusing {
		return
	}
	server, err := net.DialTimeout("tcp", target, commandTimeout)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	if p.closed || p.refusing || p.target != target { // what leads elsewhere now would outlive the Cut that follows a Target
		p.mu.Unlock()
		return
	}
	p.conns[client], p.conns[server] = false, false
	p.accepted++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	}()
	var back sync.WaitGroup
	back.Go(func() {
		p.pump(client, server, true)
		_ = client.Close()
	})
	p.pump(server, client, false)
	_ = server.Close()
	back.Wait()
}

func (p *Proxy) pump(to, from net.Conn, answers bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.mu.Lock()
			resumed, held, stalled := p.resumed, answers || !p.answers, p.conns[from]
			p.mu.Unlock()
			if stalled {
				continue
			}
			if held {
				<-resumed
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
