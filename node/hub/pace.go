package hub

import "time"

// When a worker writes. What costs is not the bytes but the writes, one system call a connection: publications that go to many connections
// at a high rate are worth waiting for one another.
const (
	// paceMost is the longest that a publication waits for the next one of its channel, so that both go to each connection in one write(2):
	// two thirds of a screen's frame.
	paceMost = 11 * time.Millisecond
	// paceShare: publications wait only when writing them one by one would take more than this part of the worker's time.
	paceShare = 16 // one sixteenth
	// wideLeast is how many subscriptions on one worker make a channel wide: its writes come after those of others, and in slices, between
	// which the worker looks into its inbox. It is also the size of a slice.
	wideLeast = 64
	// gapMost is the longest gap between publications that counts, gapWeight how many gaps their moving average is over, about.
	gapMost   = time.Second
	gapWeight = 16
	// costWeight is how many slices the moving average of a write's cost is over, about; costFirst is what a write is taken to cost before.
	costWeight = 16
	costFirst  = 3 * time.Microsecond
)

// audience is a channel's subscriptions on one worker, and how often they are published to.
type audience struct {
	subs []*Subscription
	last time.Time     // when the last publication came
	gap  time.Duration // between publications: a moving average
}

func (a *audience) wide() bool { return len(a.subs) >= wideLeast }

// published notes a publication on a wide channel.
func (a *audience) published(now time.Time) {
	if a.last.IsZero() {
		a.gap = gapMost
	}
	a.gap += (min(now.Sub(a.last), gapMost) - a.gap) / gapWeight
	a.last = now
}

// worthWaiting reports whether the channel's publications come close enough to one another, and cost enough, to wait for the next one.
func (a *audience) worthWaiting(writeCost time.Duration) bool {
	return a.gap <= paceMost && time.Duration(len(a.subs))*writeCost*paceShare >= a.gap
}

// place of a connection among those that a worker has to write to.
type place uint8

const (
	nowhere  place = iota
	inWide         // waits with others of its channel for the pace
	inWaves        // is about to be written to with them; what is queued meanwhile is taken along
	inUrgent       // is written to in this round; its entry elsewhere counts no more
)

// tally is what the meter is told when a publication's frames are flushed.
type tally struct {
	channel   string
	n         int
	published int64 // Unix milliseconds
	traced    *traced
}

// wave is connections that are written to together, and what is reported after that.
type wave struct {
	conns []*Conn
	tally []tally
}

// schedule is what a worker has to write, and when.
type schedule struct {
	urgent wave
	wide   wave      // is being gathered
	waves  wave      // is being written: conns[:next] has been
	next   int       //
	till   time.Time // wide waits; zero: it doesn't
	cost   time.Duration
	// attempt is the worker's own, so that a delivery doesn't go through the pool.
	attempt *attempt
}

// mark notes that a connection has something to be written.
func (s *schedule) mark(c *Conn, wide bool) {
	switch {
	case c.place == inUrgent, c.place != nowhere && wide:
	case wide:
		c.place = inWide
		s.wide.conns = append(s.wide.conns, c)
	default:
		c.place = inUrgent
		s.urgent.conns = append(s.urgent.conns, c)
	}
}

// pace decides, at a publication on a wide channel, whether what is to be written to wide channels waits. It goes when its time is over, or
// when the next publication is not expected in that time. A channel that is not worth waiting for goes with those that wait: those few
// milliseconds don't add up.
func (s *schedule) pace(a *audience, now time.Time) {
	a.published(now)
	if s.till.IsZero() && len(s.wide.conns) == 0 && a.worthWaiting(s.cost) {
		s.till = now.Add(paceMost)
	}
	if now.Add(a.gap).After(s.till) {
		s.till = time.Time{}
	}
}

// flushUrgent writes to everyone who doesn't wait.
func (s *schedule) flushUrgent() {
	for _, c := range s.urgent.conns {
		c.place = nowhere
		c.out.flushWith(s.attempt)
	}
	clear(s.urgent.conns)
	s.urgent.conns = s.urgent.conns[:0]
}

// flushWide writes to a slice of the others when their time has come, and reports whether more of them is left to be written now.
func (s *schedule) flushWide(now time.Time) (more bool) {
	if s.next == len(s.waves.conns) {
		s.waves.conns, s.next = s.waves.conns[:0], 0
		if len(s.wide.conns) == 0 || now.Before(s.till) {
			return false
		}
		s.till = time.Time{}
		s.waves, s.wide = s.wide, s.waves
		for _, c := range s.waves.conns {
			if c.place == inWide {
				c.place = inWaves
			}
		}
	}
	slice := s.waves.conns[s.next:min(s.next+wideLeast, len(s.waves.conns))]
	for _, c := range slice {
		if c.place == inWaves {
			c.place = nowhere
			c.out.flushWith(s.attempt)
		}
	}
	s.next += len(slice)
	s.cost += (time.Since(now)/time.Duration(len(slice)) - s.cost) / costWeight
	clear(slice)
	return s.next < len(s.waves.conns) || len(s.wide.conns) > 0 && s.till.IsZero()
}
