package feed

import (
	"context"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// doubtFor is how long a member that a comparison doesn't find must be missing before it is said to have left. A Redis that came back empty
// has forgotten everybody until each node has noticed at a heartbeat and entered its members again: their sockets never closed.
const doubtFor = limit.LeaseTTL

// members is the set of a channel's members as its subscribers know it. Joins and leaves have no offsets: the set makes
// a repeated one harmless, and after a gap the difference to Redis is delivered. The follower's lock guards it.
type members struct {
	byClient map[string]bus.ClientInfo // nil until first read
	isStale  bool                      // to be compared with Redis
	reading  bool
	parked   []bus.Message // heard while Redis is asked
	// doubted are those whom Redis doesn't know although nobody said that they left, by the time from which that is believed.
	doubted map[string]time.Time
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
	delete(fo.members.doubted, m.Info.Client)
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
		fo.doubtLocked(now)
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

// doubtLocked compares whom Redis knows with the set: who is missing for the first time is doubted, who still is when the doubt has lasted
// has left. The next comparison is planned for when the first doubt is due.
func (fo *follower) doubtLocked(now map[string]bus.ClientInfo) {
	m, at := fo.members, time.Now()
	var next time.Time
	for client, info := range m.byClient {
		if _, still := now[client]; still {
			delete(m.doubted, client)
			continue
		}
		due, already := m.doubted[client]
		switch {
		case already && !at.Before(due):
			fo.applyMemberLocked(bus.Message{Kind: bus.KindLeave, Info: info})
			continue
		case !already:
			if m.doubted == nil {
				m.doubted = map[string]time.Time{}
			}
			due = at.Add(doubtFor)
			m.doubted[client] = due
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	fo.doubtDue.Store(0)
	if !next.IsZero() {
		fo.doubtDue.Store(next.UnixNano())
	}
}

// overdue reports, once, that a doubt is due: the members are to be compared again.
func (fo *follower) overdue(now time.Time) bool {
	due := fo.doubtDue.Load()
	if due == 0 || now.UnixNano() < due || !fo.doubtDue.CompareAndSwap(due, 0) {
		return false
	}
	fo.mu.Lock()
	fo.members.stale()
	fo.mu.Unlock()
	return true
}
