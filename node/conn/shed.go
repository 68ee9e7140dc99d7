package conn

import (
	"context"
	"math/rand/v2"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// shedLoop compares this node with the fleet at every heartbeat and closes the excess over the mean, old connections in random
// order, slowly: the load balancer then gives them to the node with the fewest.
func (s *Service) shedLoop(ctx context.Context) error {
	look := time.NewTicker(limit.Heartbeat)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
		if s.draining.Load() {
			continue
		}
		once, cancel := context.WithTimeout(ctx, limit.CommandBudget)
		nodes, err := s.o.Bus.Nodes(once)
		cancel()
		if err != nil {
			continue // Redis away: nobody knows the mean
		}
		own := s.count()
		if n := excess(own, s.lease.Boot(), nodes); n > 0 {
			s.shed(ctx, n, own)
		}
	}
}

// excess is how many connections this node has more than the mean of the nodes that take some, if it is worth shedding.
func excess(own int, boot string, nodes []bus.NodeInfo) int {
	sum, ready := own, 1
	for _, n := range nodes {
		if n.Boot != boot && n.State == stateReady {
			sum += n.Connections
			ready++
		}
	}
	mean := float64(sum) / float64(ready)
	if over := float64(own) - mean; float64(own) > limit.ShedAbove*mean && over >= limit.ShedLeast {
		return int(over)
	}
	return 0
}

// shed closes at most n connections, and at most as many as the rate allows until the next look.
func (s *Service) shed(ctx context.Context, n, own int) {
	perSecond := max(1, int(limit.ShedShare*float64(own)))
	n = min(n, perSecond*int(limit.Heartbeat/time.Second))
	s.mu.Lock()
	all := s.listLocked()
	s.mu.Unlock()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	pace := time.NewTicker(time.Second / time.Duration(perSecond))
	defer pace.Stop()
	closed := 0
	for _, c := range all {
		if closed == n || s.draining.Load() {
			break
		}
		if time.Since(c.since) < s.o.ShedAge || c.canary() {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		c.close(byeForceReconnect)
		closed++
	}
	if closed > 0 {
		s.log.Info("shed connections above the fleet's mean", "closed", closed, "of", own)
	}
}
