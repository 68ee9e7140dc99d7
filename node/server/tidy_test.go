package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestGarbageIsCollectedWhenItIsCalmAndWorthIt(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		at    []heap // one an interval; the last one stays
		after int    // intervals until the first collection; 0: none
	}{
		"after a mass connect":               {[]heap{{0, 10 * mb, 10 * mb, 0}, {300 * mb, 90 * mb, 50 * mb, 0}, {301 * mb, 91 * mb, 50 * mb, 0}}, 2},
		"not while there is much to do":      {[]heap{{0, 10 * mb, 10 * mb, 0}, {300 * mb, 90 * mb, 50 * mb, 0}, {300*mb + tidyCalm + 1, 91 * mb, 50 * mb, 0}}, 3},
		"at the bound of calm":               {[]heap{{0, 90 * mb, 50 * mb, 0}, {tidyCalm, 90 * mb, 50 * mb, 0}}, 1},
		"not for little":                     {[]heap{{0, 10*mb + tidyWorth - 1, 10 * mb, 0}}, 0},
		"at the least":                       {[]heap{{0, 10*mb + tidyWorth, 10 * mb, 0}}, 1},
		"not for little beside a large heap": {[]heap{{0, 899 * mb, 800 * mb, 0}}, 0},
		"an eighth of a large heap":          {[]heap{{0, 900 * mb, 800 * mb, 0}}, 1},
		"what is free counts":                {[]heap{{0, 52 * mb, 50 * mb, 14 * mb}}, 1},
		"not when the last one left nothing": {[]heap{{0, 50 * mb, 60 * mb, 0}}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			reads, collected := 0, 0
			start := time.Now()
			var after int
			done := make(chan struct{})
			go func() {
				defer close(done)
				tidy(ctx, time.Second, func() heap {
					h := c.at[min(reads, len(c.at)-1)]
					reads++
					if collected > 0 {
						return heap{h.allocated, h.live, h.live, 0}
					}
					return h
				}, func() {
					collected++
					after = int(time.Since(start) / time.Second)
				})
			}()
			time.Sleep(10*time.Second + time.Millisecond)
			cancel()
			<-done
			if after != c.after || collected > 1 {
				t.Errorf("%s: %d collections, the first after %d intervals, want %d", name, collected, after, c.after)
			}
		})
	}
}

func TestTheRuntimeSaysWhatTheHeapHolds(t *testing.T) {
	before := readHeap()
	waste := make([]byte, 1<<20)
	after := readHeap()
	if after.allocated-before.allocated < uint64(len(waste)) || after.objects == 0 {
		t.Errorf("before %+v, after a megabyte %+v", before, after)
	}
}
