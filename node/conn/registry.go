package conn

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"
)

func (s *Service) listLocked() []*client {
	list := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		list = append(list, c)
	}
	return list
}

// full says why an address gets no connection, or nothing. Limits over the fleet fail open while the others' counts are unknown. No limit is the
// node's own client's.
func (s *Service) full(address string, own bool) (status int, why string) {
	s.mu.Lock()
	closed, pending := s.closed, s.pending
	s.mu.Unlock()
	switch n, known := s.lease.Counts().IP(address); {
	case closed:
		return http.StatusServiceUnavailable, "this node takes no new connections"
	case own:
	case pending >= s.o.Unauthenticated:
		return http.StatusServiceUnavailable, "too many connections are waiting to be authenticated"
	case known && n >= s.o.ConnectionsPerIP:
		return http.StatusTooManyRequests, "too many connections from this address"
	}
	return 0, ""
}

// add registers a client; it answers false when the node takes no newcomers.
func (s *Service) add(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if c.canary() {
		s.canaries++
	} else {
		s.pending++
		s.lease.Counts().Add("", c.address)
	}
	s.clients[c] = struct{}{}
	// A random second of the interval: everybody who came with one reconnect storm is not pinged at once.
	i := rand.IntN(len(s.buckets))
	s.buckets[i] = append(s.buckets[i], c)
	s.readers.Add(1)
	return true
}

func (s *Service) remove(c *client) {
	defer s.readers.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if c.session != nil {
		delete(s.sessions, c.session.id)
	}
	if c.canary() {
		s.canaries--
		return
	}
	counts := s.lease.Counts()
	counts.Remove("", c.address)
	if c.counted != nil {
		counts.Remove(*c.counted, "")
		if s.users[*c.counted]--; s.users[*c.counted] == 0 {
			delete(s.users, *c.counted)
		}
	} else {
		s.pending--
	}
}

// admit counts a client as its user's, unless the user has too many already. Somebody whose sockets have died without a word counts until
// they are noticed; the code lets the client try again until then.
func (s *Service) admit(c *client, user string) bool {
	if c.canary() {
		return true
	}
	s.mu.Lock()
	before := c.counted
	s.mu.Unlock()
	if before != nil {
		return *before == user // a connect before has failed on Redis
	}
	counts := s.lease.Counts()
	if n, known := counts.User(user); known && n >= s.o.ConnectionsPerUser && user != "" {
		return false
	}
	counts.Add(user, "")
	s.mu.Lock()
	s.pending--
	s.users[user]++
	c.counted = &user
	s.mu.Unlock()
	return true
}

const tick = time.Second

// pingLoop pings each connection once an interval, looks for its pong, and ends those whose token has expired. A dead
// client stays in its bucket until its turn comes.
func (s *Service) pingLoop(ctx context.Context) error {
	every := s.o.PingInterval / time.Duration(len(s.buckets))
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	wait := max(1, int((s.o.PongTimeout+every-1)/every))
	for i := 0; ; i = (i + 1) % len(s.buckets) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		now := time.Now()
		for _, c := range s.bucket((i + len(s.buckets) - wait) % len(s.buckets)) {
			c.wantPong()
		}
		for _, c := range s.bucket(i) {
			c.ping(now)
		}
	}
}

// bucket drops the gone from a bucket and answers a copy.
func (s *Service) bucket(i int) []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.buckets[i][:0]
	for _, c := range s.buckets[i] {
		if _, here := s.clients[c]; here {
			kept = append(kept, c)
		}
	}
	clear(s.buckets[i][len(kept):])
	s.buckets[i] = kept
	return append([]*client(nil), kept...)
}
