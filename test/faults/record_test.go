package faults

import (
	"encoding/json"
	"fmt"
)

// message is the data of every publication here: its number among those of one publisher.
type message struct {
	N uint64 `json:"n"`
}

// stretch is a part of a channel that a subscriber was promised without a gap: everything of one epoch from a position on.
type stretch struct {
	epoch  string
	from   uint64   // the position that the subscriber was given; the first publication is the one after it
	got    []uint64 // numbers of the messages, at from+1, from+2, …
	resume int      // how often it was continued by recovery
}

func (s *stretch) last() uint64 { return s.from + uint64(len(s.got)) }

// record is what one subscription has seen. It is not safe for concurrent use: the client's lock, or the SDK's order of events, guards it.
type record struct {
	client, channel string
	joinLeave       bool

	live          bool
	stretches     []*stretch
	told          int // recovered: false
	unsubscribes  int // pushes with a code from 2500 on
	joins, leaves []string
	faults        []string // broken promises, the first few
	broken        int      // all of them
}

func (r *record) fault(format string, args ...any) {
	r.broken++
	if len(r.faults) < 5 {
		r.faults = append(r.faults, fmt.Sprintf("%s on %s: ", r.client, r.channel)+fmt.Sprintf(format, args...))
	}
}

func (r *record) current() *stretch {
	if len(r.stretches) == 0 {
		return nil
	}
	return r.stretches[len(r.stretches)-1]
}

type subscribeRequest struct {
	Channel   string `json:"channel,omitempty"`
	Recover   bool   `json:"recover,omitempty"`
	Epoch     string `json:"epoch,omitempty"`
	Offset    uint64 `json:"offset,omitempty"`
	JoinLeave bool   `json:"join_leave,omitempty"`
}

// request asks for the channel, from the last position once there is one.
func (r *record) request() subscribeRequest {
	s := subscribeRequest{Channel: r.channel, JoinLeave: r.joinLeave}
	if at := r.current(); at != nil {
		s.Recover, s.Epoch, s.Offset = true, at.epoch, at.last()
	}
	return s
}

// command is the subscribe command.
func (r *record) command(id uint32) []byte {
	frame, err := json.Marshal(map[string]any{"id": id, "subscribe": r.request()})
	if err != nil {
		panic(err) // strings and numbers
	}
	return frame
}

// subscribed takes a subscribe reply: the position continues, or a new stretch begins.
func (r *record) subscribed(s *wireSubscribe) {
	if s == nil {
		r.fault("a subscribe reply without a result")
		return
	}
	r.resumed(s.WasRecovering, s.Recovered, s.Epoch, s.Offset)
	for i := range s.Publications {
		r.publication(&s.Publications[i])
	}
	if at := r.current(); at.last() != s.Offset {
		r.fault("the reply says offset %d, its publications end at %d", s.Offset, at.last())
	}
}

func (r *record) resumed(wasRecovering, recovered bool, epoch string, offset uint64) {
	r.live = true
	at := r.current()
	if at != nil && wasRecovering && recovered {
		at.resume++
		if at.epoch != epoch {
			r.fault("recovered from epoch %s into %s", at.epoch, epoch)
		}
		return
	}
	if at != nil {
		r.told++
		if !wasRecovering {
			r.fault("a recovery was answered as if it had not been asked for")
		}
	}
	r.stretches = append(r.stretches, &stretch{epoch: epoch, from: offset})
}

func (r *record) unsubscribed(code int) {
	r.live = false
	r.unsubscribes++
	if code < 2500 {
		r.fault("unsubscribed with %d", code)
	}
}

func (r *record) leave() { r.live = false }

func (r *record) publication(p *wirePublication) {
	var m message
	if err := json.Unmarshal(p.Data, &m); err != nil {
		r.fault("data %q", p.Data)
		return
	}
	r.heard(p.Offset, m.N)
}

// heard takes one publication: only the one after the last will do.
func (r *record) heard(offset, n uint64) {
	at := r.current()
	switch {
	case !r.live || at == nil:
		r.fault("offset %d while not subscribed", offset)
		return
	case offset <= at.last():
		r.fault("offset %d (message %d) twice, after %d", offset, n, at.last())
		return
	case offset > at.last()+1:
		r.fault("offset %d after %d: a silent gap", offset, at.last())
	case len(at.got) > 0 && n <= at.got[len(at.got)-1]:
		r.fault("message %d at offset %d after message %d", n, offset, at.got[len(at.got)-1])
	}
	for at.last()+1 < offset {
		at.got = append(at.got, 0) // keeps the places of what follows
	}
	at.got = append(at.got, n)
}
