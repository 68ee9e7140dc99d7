package conn

import (
	"time"

	"tideline/shared/limit"
)

// commandsBurst is how many seconds' worth of commands may come at once: limit.CommandsBurst.
const commandsBurst = limit.CommandsBurst / limit.CommandsPerSecond

// bucket is a token bucket for one goroutine.
type bucket struct {
	rate, burst, tokens float64
	last                time.Time
}

func newBucket(rate, burst int) bucket {
	return bucket{rate: float64(rate), burst: float64(burst), tokens: float64(burst), last: time.Now()}
}

func (b *bucket) take(n int, now time.Time) bool {
	b.tokens = min(b.burst, b.tokens+now.Sub(b.last).Seconds()*b.rate)
	b.last = now
	if b.tokens < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	return true
}
