package bus

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// stage is a shard without a network: links are filled by hand, and the calls to the handler are written down.
type stage struct {
	sh    *shard
	calls []string
}

func (s *stage) Heard(channel string, m Message) {
	s.calls = append(s.calls, fmt.Sprintf("heard %s %d", channel, m.Publication.Offset))
}
func (s *stage) Confirmed(channel string)   { s.calls = append(s.calls, "confirmed "+channel) }
func (s *stage) Interrupted(channel string) { s.calls = append(s.calls, "interrupted "+channel) }

func newStage(t *testing.T) *stage {
	t.Helper()
	b := openTest(t, Options{URL: "redis://127.0.0.1:1"})
	s := &stage{}
	sub := b.NewSubscriber(s)
	sub.tune.messages = 4
	s.sh = sub.shards[0]
	return s
}

// link adds a connected link that has been told of everything wanted so far.
func (s *stage) link() *link {
	l := newLink(s.sh)
	l.cancel = func() {}
	l.wantAll()
	l.in.put(&redis.Subscription{Kind: "subscribe", Channel: l.probeChannel()})
	if s.sh.main == nil {
		s.sh.main = l
	} else {
		s.sh.next = l
	}
	s.sh.receive(l)
	s.flush(l)
	return l
}

func (s *stage) want(name string, wanted bool) {
	s.sh.want(name, wanted)
	s.sh.takeIntents()
	for _, l := range []*link{s.sh.main, s.sh.next} {
		if l != nil {
			s.flush(l)
		}
	}
}

// flush has the link send its commands to nobody.
func (s *stage) flush(l *link) {
	l.flush(time.Now())
	for len(l.out) > 0 {
		<-l.out
	}
}

func (s *stage) confirm(l *link, kind, name string) {
	l.in.put(&redis.Subscription{Kind: kind, Channel: s.sh.pubsubChannel(name)})
	s.sh.receive(l)
}

func (s *stage) message(l *link, name string, offset int) {
	l.in.put(&redis.Message{Channel: s.sh.pubsubChannel(name), Payload: fmt.Sprintf("1 p e.0 %d\n{}\nx", offset)})
	s.sh.receive(l)
}

// expect compares the calls since the last expect.
func (s *stage) expect(t *testing.T, calls ...string) {
	t.Helper()
	if !slices.Equal(s.calls, calls) {
		t.Errorf("calls %q, want %q", s.calls, calls)
	}
	s.calls = nil
}

// Rule 11: subscribe, unsubscribe, subscribe: three commands, and only the third one's confirmation counts.
func TestOnlyTheLastConfirmationCounts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	l := s.link()
	s.want("a", true)
	s.want("a", false)
	s.want("a", true)
	s.confirm(l, "subscribe", "a")
	s.message(l, "a", 1)
	s.confirm(l, "unsubscribe", "a")
	s.expect(t)
	s.confirm(l, "subscribe", "a")
	s.message(l, "a", 2)
	s.expect(t, "confirmed a", "heard a 2")
	if !l.converged() {
		t.Error("everything wanted is heard and nothing is owed")
	}
	s.want("a", false)
	s.message(l, "a", 3) // not confirmed yet, but nobody wants it
	s.confirm(l, "unsubscribe", "a")
	s.expect(t)
	if len(l.chans) != 0 || l.live != 0 || !l.converged() {
		t.Errorf("the link still keeps %d channels, %d live", len(l.chans), l.live)
	}
}

// Given up and wanted again before the server was told: it is heard all along, and confirmed anew.
func TestTurnedIntentIsConfirmedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	l := s.link()
	s.want("a", true)
	s.confirm(l, "subscribe", "a")
	s.expect(t, "confirmed a")
	s.sh.want("a", false)
	s.sh.want("a", true)
	s.sh.takeIntents()
	s.expect(t, "confirmed a")
	s.sh.want("a", false)
	s.sh.takeIntents()
	s.sh.want("a", true)
	s.sh.takeIntents()
	s.expect(t, "confirmed a")
	s.sh.want("a", true)
	s.sh.takeIntents()
	s.expect(t) // wanted already
	s.flush(l)
	if len(l.unacked) != 0 {
		t.Errorf("%d commands for nothing", len(l.unacked))
	}
}

func TestUnrequestedUnsubscribeLosesTheLink(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	l := s.link()
	s.want("a", true)
	s.want("b", true)
	s.confirm(l, "subscribe", "a")
	s.confirm(l, "subscribe", "b")
	s.expect(t, "confirmed a", "confirmed b")
	s.confirm(l, "sunsubscribe", "a")
	slices.Sort(s.calls)
	s.expect(t, "interrupted a", "interrupted b")
	if s.sh.main != nil {
		t.Error("the link must be given up")
	}
}

// Rule 12: what the next link hears first waits until the main link is through.
func TestRotationKeepsTheOrder(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	main := s.link()
	s.want("a", true)
	s.confirm(main, "subscribe", "a")
	s.message(main, "a", 1)
	next := s.link()
	s.confirm(next, "subscribe", "a")
	s.message(next, "a", 3)
	s.message(main, "a", 2) // was on its way
	s.expect(t, "confirmed a", "heard a 1", "heard a 2")
	if !next.converged() {
		t.Fatal("the next link hears all that is wanted")
	}
	main.beginRetirement(time.Now())
	s.message(main, "a", 3)
	s.message(next, "a", 4)
	main.in.put(&redis.Pong{Payload: "barrier"})
	s.sh.receive(main)
	s.expect(t, "heard a 3", "heard a 3", "heard a 4")
	s.message(next, "a", 5)
	s.expect(t, "heard a 5")
	if s.sh.main != next || s.sh.next != nil {
		t.Error("the next link is the main one now")
	}
}

// The main link is lost before the barrier: what it had not passed on is missing, and what the next one heard follows.
func TestMainLostDuringRotation(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	main := s.link()
	s.want("a", true)
	s.want("b", true)
	s.confirm(main, "subscribe", "a")
	s.confirm(main, "subscribe", "b")
	next := s.link()
	waits := next.unacked[0].name
	s.confirm(next, "subscribe", waits)
	s.message(next, waits, 3)
	s.calls = nil
	main.in.fail(errors.New("cut"))
	s.sh.receive(main)
	other := map[string]string{"a": "b", "b": "a"}[waits]
	i := slices.Index(s.calls, "interrupted "+waits)
	if i < 0 || !slices.Contains(s.calls, "interrupted "+other) || slices.Contains(s.calls, "confirmed "+other) ||
		slices.Index(s.calls, "confirmed "+waits) != i+1 || s.calls[len(s.calls)-1] != "heard "+waits+" 3" {
		t.Errorf("calls %q", s.calls)
	}
	s.calls = nil
	s.confirm(next, "subscribe", other)
	s.expect(t, "confirmed "+other)
}

// The next link is lost: the main one goes on, and only what was heard by the next one alone is interrupted.
func TestNextLostDuringRotation(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	main := s.link()
	s.want("a", true)
	s.confirm(main, "subscribe", "a")
	next := s.link()
	s.confirm(next, "subscribe", "a")
	s.want("b", true)
	s.confirm(next, "subscribe", "b")
	s.confirm(main, "subscribe", "b")
	s.message(next, "b", 1)
	s.message(main, "b", 1) // b is heard by the next link
	s.expect(t, "confirmed a", "confirmed b", "heard b 1")
	next.in.fail(errors.New("cut"))
	s.sh.receive(next)
	s.expect(t, "interrupted b", "confirmed b")
	s.message(main, "a", 1)
	s.message(main, "b", 2)
	s.expect(t, "heard a 1", "heard b 2")
}

// What waits for the next link is bounded; what does not fit is told when it takes over.
func TestParkedMessagesAreBounded(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	main := s.link()
	s.want("a", true)
	s.confirm(main, "subscribe", "a")
	next := s.link()
	s.confirm(next, "subscribe", "a")
	for i := range 6 { // room for 4
		s.message(next, "a", i+1)
	}
	s.expect(t, "confirmed a")
	main.beginRetirement(time.Now())
	main.in.put(&redis.Pong{})
	s.sh.receive(main)
	s.expect(t, "heard a 1", "heard a 2", "heard a 3", "heard a 4", "interrupted a", "confirmed a")
	if n := s.sh.sub.bus.Stats().Overflowed; n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
}

func TestInboxBounds(t *testing.T) {
	t.Parallel()
	message := func(n int) *redis.Message { return &redis.Message{Channel: "c", Payload: string(make([]byte, n))} }
	q := newInbox(2, 100)
	if !q.put(message(98)) { // with its channel's name 99
		t.Error("there is room for one of 99 bytes")
	}
	if q.put(message(1)) {
		t.Error("one byte past the bound")
	}
	if q.put(message(0)) {
		t.Error("after a drop everything is dropped until somebody takes: later ones must not overtake")
	}
	if !q.put(&redis.Subscription{Kind: "subscribe"}) {
		t.Error("confirmations are never dropped")
	}
	items, gapped, _ := q.take(nil)
	if len(items) != 2 || len(gapped) != 1 {
		t.Errorf("%d items, gapped %v", len(items), gapped)
	}
	for i, want := range []bool{true, true, false} {
		if got := q.put(message(1)); got != want {
			t.Errorf("message %d of 2: kept %v", i+1, got)
		}
	}
}
