package docker

import (
	"encoding/json"
	"fmt"
	"time"
)

// States that the last note of a stream told of; they are kept in its cursor, so that another reader does not say it again.
const (
	saidGone       = "gone"       // no such container
	saidStopped    = "stopped"    // the container does not run
	saidAway       = "away"       // the engine does not answer
	saidUnreadable = "unreadable" // the container's logging driver keeps nothing that could be read
)

// cursor is where a reader goes on.
type cursor struct {
	position
	Container string `json:"id,omitempty"`  // whose position it is
	Started   string `json:"up,omitempty"`  // when that container had been started
	Said      string `json:"s,omitempty"`   // one of the states
	Mid       string `json:"mid,omitempty"` // the streams that are in the middle of a line: "stdout", "stderr" or both
}

// position is the n-th thing of a time; a container's two streams may be logged out of the order of their times, but the order in which
// the engine answers them never changes.
type position struct {
	Time  int64 `json:"t,omitempty"` // Unix nanoseconds
	Count int   `json:"n,omitempty"`
}

func parseCursor(s string) (c cursor, err error) {
	if s == "" {
		return cursor{}, nil
	}
	if err := json.Unmarshal([]byte(s), &c); err != nil {
		return cursor{}, err
	}
	return c, nil
}

func (c cursor) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		return "" // strings and numbers always marshal; empty leaves the cursor where it is
	}
	return string(b)
}

// since is where a resumed reading begins, as the engine takes it: a little before the position.
func since(p position) string {
	from := p.Time - int64(disorder)
	return fmt.Sprintf("%d.%09d", from/1e9, from%1e9)
}

const (
	// disorder is how far the times of what is answered may go backwards, and so how much earlier than the position a resumed reading begins.
	disorder = 100 * time.Millisecond
	// recentTimes are remembered to count the equal ones among them.
	recentTimes = 64
	// heldMost is how many things wait while it is not known whether the position is still there.
	heldMost = 1000
)

// resumption skips what came before a position, in a stream that begins a little before it. Not safe for concurrent use.
type resumption[T any] struct {
	want   position // found: zero
	held   []stamped[T]
	recent [recentTimes]position
	next   int
}

type stamped[T any] struct {
	position
	item T
}

// take answers what is to be passed on now. gap: the position is not there any more, so that something may be missing before the first of them.
func (r *resumption[T]) take(at int64, item T) (out []stamped[T], gap bool) {
	s := stamped[T]{r.count(at), item}
	if r.want.Time == 0 {
		return []stamped[T]{s}, false
	}
	switch {
	case s.position == r.want:
		// What is held stood before the position, although its time is later.
		r.want, r.held = position{}, nil
		return nil, false
	case at <= r.want.Time:
		return nil, false // not there yet
	}
	r.held = append(r.held, s)
	if time.Duration(at-r.want.Time) > disorder || len(r.held) >= heldMost {
		return r.giveUp()
	}
	return nil, false
}

// giveUp says that the position will not come any more.
func (r *resumption[T]) giveUp() (out []stamped[T], gap bool) {
	out, gap = r.held, r.want.Time != 0
	r.want, r.held = position{}, nil
	return out, gap
}

// count answers the position of one more thing of a time.
func (r *resumption[T]) count(at int64) position {
	for i := range r.recent {
		if r.recent[i].Time == at && r.recent[i].Count > 0 {
			r.recent[i].Count++
			return r.recent[i]
		}
	}
	p := position{at, 1}
	r.recent[r.next] = p
	r.next = (r.next + 1) % recentTimes
	return p
}
