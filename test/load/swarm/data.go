// Package swarm is thousands of WebSocket subscribers in one goroutine, made to cost little beside the servers that they measure, and
// strict: each checks that it hears every publication of its channel once and in order.
package swarm

import (
	"bytes"
	"fmt"
	"time"
)

// Least is the shortest publication, in bytes: what the checks need and its JSON.
const Least = len(head) + placeLen + len(tail)

const (
	head = `{"m":"~`
	tail = `"}`
	// mark stands before the place in whatever a server wraps around it, and nowhere else.
	mark     = '~'
	placeLen = 4 + 8 + 16
)

// Place is what a publication says about itself.
type Place struct {
	Channel uint16
	Seq     uint32        // counts the channel's publications from 0
	Due     time.Duration // when the schedule wanted it published, since the swarm's start
}

// Data is a publication of size bytes, at least Least.
func Data(p Place, size int) []byte {
	b := make([]byte, 0, size)
	b = fmt.Appendf(b, "%s%04x%08x%016x", head, p.Channel, p.Seq, uint64(p.Due))
	for len(b) < size-len(tail) {
		b = append(b, 'x')
	}
	return append(b, tail...)
}

// next finds the next publication in what a server sent, and what is behind it.
func next(b []byte) (p Place, rest []byte, ok bool) {
	i := bytes.IndexByte(b, mark)
	if i < 0 || len(b)-i-1 < placeLen {
		return p, nil, false
	}
	b = b[i+1:]
	return Place{Channel: uint16(hex(b[:4])), Seq: uint32(hex(b[4:12])), Due: time.Duration(hex(b[12:28]))}, b[placeLen:], true
}

func hex(b []byte) (n uint64) {
	for _, c := range b {
		d := c - '0'
		if c >= 'a' {
			d = c - 'a' + 10
		}
		n = n<<4 | uint64(d&15)
	}
	return n
}
