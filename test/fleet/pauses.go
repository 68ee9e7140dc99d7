package fleet

import (
	"sync"
	"time"
)

// Pauses notices when this process was not run for a while: the machine stood still, and whatever was to happen in a time took so much longer.
type Pauses struct {
	mu  sync.Mutex
	all []pause
}

type pause struct {
	ended time.Time
	took  time.Duration
}

// WatchPauses watches until the test ends.
func WatchPauses(t T) *Pauses {
	t.Helper()
	p := &Pauses{}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); p.watch(stop) }()
	t.Cleanup(func() { close(stop); <-ended })
	return p
}

func (p *Pauses) watch(stop <-chan struct{}) {
	const every = 20 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		if late := now.Sub(last) - every; late > every {
			p.mu.Lock()
			p.all = append(p.all, pause{now, late})
			p.mu.Unlock()
		}
		last = now
	}
}

// Since is the longest pause that ended after a moment.
func (p *Pauses) Since(began time.Time) (longest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		if one.ended.After(began) {
			longest = max(longest, one.took)
		}
	}
	return longest
}

// Longer counts the pauses so far that took longer.
func (p *Pauses) Longer(than time.Duration) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		if one.took > than {
			n++
		}
	}
	return n
}
