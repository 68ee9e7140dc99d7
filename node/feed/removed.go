package feed

import (
	"slices"
	"sort"

	"tideline/shared/bus"
)

// historyRemovedLocked takes note that the channel's history was removed up to an offset; it reports whether Redis must be asked.
func (fo *follower) historyRemovedLocked(epoch string, upTo uint64) (compare bool) {
	if fo.known && epoch == fo.pos.Epoch {
		fo.forgetLocked(upTo)
		return false
	}
	// Which epoch this belongs to only Redis tells, and a comparison that is under way may have read before the removal: joins wait for another.
	fo.compared = false
	fo.generation++
	return true
}

// forgetLocked drops what was removed from the ring. What a history read that is under way brings of it is dropped when it comes.
func (fo *follower) forgetLocked(upTo uint64) {
	if upTo <= fo.removed {
		return
	}
	fo.removed = upTo
	fo.ring.forget(fo.f, upTo)
}

// forget drops the publications up to an offset, their memory with them.
func (r *ring) forget(f *Feed, upTo uint64) {
	kept := newerThan(r.pubs, upTo)
	if len(kept) == len(r.pubs) {
		return
	}
	dropped := 0
	for _, p := range r.pubs[:len(r.pubs)-len(kept)] {
		dropped += entryBytes(p)
	}
	r.pubs = slices.Clone(kept)
	r.bytes -= dropped
	f.ringBytes.Add(-int64(dropped))
}

// newerThan is the part of pubs, which are in order, after an offset.
func newerThan(pubs []*bus.Publication, offset uint64) []*bus.Publication {
	return pubs[sort.Search(len(pubs), func(i int) bool { return pubs[i].Offset > offset }):]
}
