package conn

import "time"

// expiredGrace is how long after its token's end a client may take to refresh it.
const expiredGrace = 25 * time.Second

// ping sends the protocol's ping, unless the connection or some of its subscriptions have outlived their tokens. Called once an interval.
func (c *client) ping(now time.Time) {
	c.mu.Lock()
	ready := c.state == connected && c.goodbye == nil
	expired := !c.claims.Expires.IsZero() && now.After(c.claims.Expires.Add(c.s.o.ExpiredGrace))
	c.mu.Unlock()
	if ready {
		c.expireSubscriptions(now)
	}
	switch {
	case !ready:
	case expired:
		c.close(byeExpired)
	case c.resumed != nil && !c.resumed.one:
		c.pingWithID()
	case formats[c.format].mute:
		c.out.Send(formats[c.format].ping)
	case c.pinged.CompareAndSwap(0, now.UnixNano()):
		c.out.Send(formats[c.format].ping)
	}
}

// pong reports whether it answers a ping. An unasked one of a connected client is harmless: a ping and its timeout may have crossed it.
func (c *client) pong() bool {
	if at := c.pinged.Swap(0); at != 0 {
		c.s.meter.roundTrip.Observe(time.Since(time.Unix(0, at)).Seconds())
		return true
	}
	if !c.is(connected) {
		c.close(byeBadRequest)
	}
	return false
}

// wantPong is called limit.PongTimeout after ping.
func (c *client) wantPong() {
	if c.pinged.Load() != 0 {
		c.close(byeNoPong)
	}
}

// expireSubscriptions ends those whose token ran out without being refreshed; the client resubscribes with a new one. Those that the server made
// for a time end with it.
func (c *client) expireSubscriptions(now time.Time) {
	lapsed := false
	c.dropWhere(unsubExpired, "subscription expired", func(_ string, sub *subscription) bool {
		if !sub.until.IsZero() && now.After(sub.until) {
			return true
		}
		end := sub.token.Expires
		over := !end.IsZero() && now.After(end.Add(c.s.o.ExpiredGrace))
		lapsed = lapsed || over
		return over
	})
	if lapsed && c.uni() {
		c.close(byeSubExpired) // it can't subscribe again, but come back
	}
}

// dropWhere ends the subscriptions that a condition selects, and answers how many. The condition is called under c.mu. Subscriptions that
// are still being made are left alone.
func (c *client) dropWhere(code uint32, reason string, selected func(name string, sub *subscription) bool) int {
	c.mu.Lock()
	out := map[string]*subscription{}
	for name, sub := range c.subs {
		if sub.hub != nil && selected(name, sub) {
			out[name] = sub
			delete(c.subs, name)
		}
	}
	c.mu.Unlock()
	for name, sub := range out {
		c.drop(name, sub, func() []byte { return c.unsubscribeFrame(name, code, reason) })
	}
	return len(out)
}
