package swarm

// Verdict counts what the subscribers have heard, and what was wrong with it.
type Verdict struct {
	Delivered uint64 // publications, once each
	Repeated  uint64 // heard again
	Missing   uint64 // not heard although a later one, or the end, was
	Late      uint64 // heard after a later one
	Strange   uint64 // of a channel that was not subscribed to
}

// Clean reports whether everything came once and in order.
func (v Verdict) Clean() bool {
	return v.Repeated == 0 && v.Missing == 0 && v.Late == 0 && v.Strange == 0
}

// Track is what one subscriber has heard of its channel. The zero Track expects number 0 next.
type Track struct {
	next uint32 // one above the highest that was heard
	seen uint64 // bit i: next-1-i was heard
}

// From is a Track that expects number n next: what was before doesn't concern it.
func From(n uint32) Track { return Track{next: n, seen: ^uint64(0)} }

// Heard notes a publication in the verdict and answers whether it is heard for the first time.
func (t *Track) Heard(seq uint32, v *Verdict) bool {
	switch {
	case seq == t.next:
		t.next++
		t.seen = t.seen<<1 | 1
	case seq > t.next:
		skipped := seq - t.next
		v.Missing += uint64(skipped)
		t.seen = t.seen<<(skipped+1) | 1 // a shift by 64 or more is zero
		t.next = seq + 1
	default:
		bit := uint64(1) << (t.next - 1 - seq) // zero past the 64 that are remembered: taken for a repetition
		if bit == 0 || t.seen&bit != 0 {
			v.Repeated++
			return false
		}
		t.seen |= bit
		v.Missing--
		v.Late++
	}
	v.Delivered++
	return true
}

// End notes what is missing of a channel that had n publications.
func (t *Track) End(n uint32, v *Verdict) {
	if n > t.next {
		v.Missing += uint64(n - t.next)
	}
}
