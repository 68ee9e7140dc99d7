package conn

import "crypto/subtle"

// canary reports whether this is the node's own client: the one that came with Options.CanaryToken. It is a client like any other on the wire,
// and nobody's otherwise: no limit of addresses and users counts it, nor does what the group is scaled by, and orders don't find it. It may
// subscribe to channel.Canary and to nothing else.
func (c *client) canary() bool { return c.s.isCanary(c.bearer) }

func (s *Service) isCanary(token string) bool {
	return s.o.CanaryToken != "" && subtle.ConstantTimeCompare([]byte(token), []byte(s.o.CanaryToken)) == 1
}

// canaryCount is how many of the node's own clients there are.
func (s *Service) canaryCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.canaries
}

// countLocked is how many clients there are beside the node's own.
func (s *Service) countLocked() int { return len(s.clients) - s.canaries }

// count is countLocked for who does not hold the lock.
func (s *Service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.countLocked()
}
