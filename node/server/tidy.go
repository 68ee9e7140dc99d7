package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A mass reconnect leaves as much garbage behind as live connections, and the runtime keeps it until the heap has doubled again, or for
// minutes: on a node full of idle sockets that is half of its memory. So it is collected and given back as soon as it is calm.
const (
	tidyEvery = 5 * time.Second
	// tidyCalm is how many bytes may have been allocated in an interval for it to be called calm.
	tidyCalm = 8 << 20
	// tidyWorth is the least that must have been allocated since the last collection or be free, in bytes, and tidyShare as a part of what is
	// live: one eighth.
	tidyWorth = 16 << 20
	tidyShare = 8
)

// heap is what the runtime says of its memory, in bytes.
type heap struct {
	allocated uint64 // ever
	objects   uint64 // live, or not yet collected
	live      uint64 // after the last collection
	free      uint64 // kept from the operating system for what comes
}

func readHeap() heap {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
}

// calm reports whether little was allocated since before, and worthwhile whether there is enough to collect.
func (h heap) calm(before heap) bool { return h.allocated-before.allocated <= tidyCalm }

func (h heap) worthwhile() bool {
	return h.free+h.objects >= h.live+max(tidyWorth, h.live/tidyShare)
}

// tidy collects garbage at calm moments until ctx ends.
func tidy(ctx context.Context, every time.Duration, read func() heap, collect func()) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for before := read(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := read()
		if now.calm(before) && now.worthwhile() {
			collect()
			now = read()
		}
		before = now
	}
}

// giveBack collects and returns what is free to the operating system.
func giveBack() { debug.FreeOSMemory() }
