package swarm

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets that are about 1.5 % wide. The zero Histogram is empty.
type Histogram struct {
	counts [40 * steps]uint64
	n      uint64
	sum    time.Duration
}

// steps is the number of buckets between a power of two (in microseconds) and the next one.
const steps = 64

// Add counts d; less than nothing counts as nothing.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[min(bucket(uint64(d/time.Microsecond)), len(h.counts)-1)]++
	h.n++
	h.sum += d
}

// bucket is exact below steps microseconds, and logarithmic above.
func bucket(us uint64) int {
	if us < steps {
		return int(us)
	}
	e := bits.Len64(us) - bits.Len64(steps) // so that us>>e is in [steps, 2*steps)
	return e*steps + int(us>>e)
}

// upper is the highest duration of a bucket.
func upper(i int) time.Duration {
	if i < steps {
		return time.Duration(i+1) * time.Microsecond
	}
	e := i/steps - 1
	return time.Duration(uint64(i%steps+steps+1)<<e) * time.Microsecond
}

// N is how many durations were counted.
func (h *Histogram) N() uint64 { return h.n }

// Quantile answers a duration that the share q of all is at or below; 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	want, sum := uint64(q*float64(h.n)), uint64(0)
	for i, c := range h.counts {
		if sum += c; sum > 0 && sum >= want {
			return upper(i)
		}
	}
	return 0
}
