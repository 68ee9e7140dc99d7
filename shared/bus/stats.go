package bus

import "sync/atomic"

// Stats counts what the bus has met since Open. Every number only grows.
type Stats struct {
	// Retries of commands and scripts: failed connections, redirects, TRYAGAIN.
	Retries uint64
	// Rebuilt counts subscriber connections that were lost and built again, Rotated those that were replaced for their age.
	Rebuilt, Rotated uint64
	// Unconfirmed counts rebuilds because the server did not confirm a subscription within limit.SubscribeConfirm.
	Unconfirmed uint64
	// ProbesLost counts liveness probes that did not come back within limit.ProbeTimeout.
	ProbesLost uint64
	// Overflowed counts messages that were dropped because an inbox was full; their channels were interrupted.
	Overflowed uint64
	// Unreadable counts messages whose envelope is malformed or of a version that this build does not read.
	Unreadable uint64
}

type counters struct {
	retries, rebuilt, rotated, unconfirmed, probesLost, overflowed, unreadable atomic.Uint64
}

// Stats may be called at any time.
func (b *Bus) Stats() Stats {
	c := &b.stats
	return Stats{
		Retries: c.retries.Load(), Rebuilt: c.rebuilt.Load(), Rotated: c.rotated.Load(), Unconfirmed: c.unconfirmed.Load(),
		ProbesLost: c.probesLost.Load(), Overflowed: c.overflowed.Load(), Unreadable: c.unreadable.Load(),
	}
}
