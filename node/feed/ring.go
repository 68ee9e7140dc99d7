package feed

import (
	"sort"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// ring holds the most recent publications of one channel, contiguous and ending at the follower's position. The follower's lock guards
// it. Publications and the array behind pubs are never changed once written: whoever was answered from the ring shares them.
type ring struct {
	pubs  []*bus.Publication
	bytes int
}

// entryBytes is what a publication is counted as: its data, and the rest of it roughly.
func entryBytes(p *bus.Publication) int { return len(p.Data) + 160 }

// add appends the publication at the new top and drops the oldest that no longer fit.
func (r *ring) add(f *Feed, p *bus.Publication) {
	before := r.bytes
	r.pubs = append(r.pubs, p)
	r.bytes += entryBytes(p)
	drop := 0
	for r.bytes > limit.RingBytes {
		r.bytes -= entryBytes(r.pubs[drop])
		drop++
	}
	r.pubs = r.pubs[drop:] // append moves to a new array when this one is used up, and what was dropped goes with the old one
	if len(r.pubs) == 0 {
		r.pubs = nil
	}
	f.ringBytes.Add(int64(r.bytes - before))
}

// extend puts publications that end right before the ring's first (or at top, if the ring is empty) in front of it, newest first as far as they fit.
func (r *ring) extend(f *Feed, older []*bus.Publication, top uint64) {
	first := top + 1
	if len(r.pubs) > 0 {
		first = r.pubs[0].Offset
	}
	n := sort.Search(len(older), func(i int) bool { return older[i].Offset >= first })
	older = older[:n]
	if n == 0 || older[n-1].Offset != first-1 {
		return
	}
	before := r.bytes
	from := n
	for from > 0 && r.bytes+entryBytes(older[from-1]) <= limit.RingBytes {
		from--
		r.bytes += entryBytes(older[from])
	}
	merged := make([]*bus.Publication, 0, n-from+len(r.pubs))
	r.pubs = append(append(merged, older[from:]...), r.pubs...)
	f.ringBytes.Add(int64(r.bytes - before))
}

// since answers what comes after offset, if the ring reaches back that far; top is the follower's position.
func (r *ring) since(offset, top uint64) ([]*bus.Publication, bool) {
	if offset == top {
		return nil, true
	}
	if offset > top || len(r.pubs) == 0 || r.pubs[0].Offset > offset+1 {
		return nil, false
	}
	missed := r.pubs[offset+1-r.pubs[0].Offset:]
	return missed[:len(missed):len(missed)], true
}

func (r *ring) clear(f *Feed) {
	f.ringBytes.Add(-int64(r.bytes))
	*r = ring{}
}
