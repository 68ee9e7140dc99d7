package feed

import (
	"context"

	"tideline/shared/bus"
)

// members is the set of a channel's members as its subscribers know it. Joins and leaves have no offsets: the set makes
// a repeated one harmless, and after a gap the difference to Redis is delivered. The follower's lock guards it.
type members struct {
	byClient map[string]bus.ClientInfo // nil until first read
	isStale  bool                      // to be compared with Redis
	reading  bool
	parked   []bus.Message // heard while Redis is asked
}

func (m *members) stale() {
	if m != nil {
		m.isStale = true
	}
}

func (fo *follower) memberLocked(m bus.Message) {
	if fo.members == nil {
		return
	}
	if fo.members.reading || fo.members.byClient == nil {
		if len(fo.members.parked) < 4096 {
			fo.members.parked = append(fo.members.parked, m)
		} else {
			fo.members.isStale = true
		}
		return
	}
	fo.applyMemberLocked(m)
}

func (fo *follower) applyMemberLocked(m bus.Message) {
	_, known := fo.members.byClient[m.Info.Client]
	joined := m.Kind == bus.KindJoin
	if joined == known {
		return
	}
	if joined {
		fo.members.byClient[m.Info.Client] = m.Info
	} else {
		delete(fo.members.byClient, m.Info.Client)
	}
	fo.f.sink.Member(fo.name, joined, m.Info)
}

// refreshMembersLocked compares the set with Redis and delivers the difference. It gives the lock up while it asks.
func (fo *follower) refreshMembersLocked(ctx context.Context) error {
	m := fo.members
	m.reading, m.isStale = true, false
	fo.mu.Unlock()
	now, err := fo.f.src.Presence(ctx, fo.name)
	fo.mu.Lock()
	m.reading = false
	if err != nil {
		m.isStale = true
		return err
	}
	if m.byClient == nil {
		m.byClient = now
	} else {
		for client, info := range m.byClient {
			if _, still := now[client]; !still {
				fo.applyMemberLocked(bus.Message{Kind: bus.KindLeave, Info: info})
			}
		}
		for _, info := range now {
			fo.applyMemberLocked(bus.Message{Kind: bus.KindJoin, Info: info})
		}
	}
	heard := m.parked
	m.parked = nil
	for _, msg := range heard {
		fo.applyMemberLocked(msg)
	}
	return nil
}
