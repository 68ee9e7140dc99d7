package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"tideline/shared/limit"
)

// announced hears the joins and leaves of channels on a connection of its own.
type announced struct {
	pubsub *redis.PubSub
	done   sync.WaitGroup

	mu     sync.Mutex
	joins  map[string]int // client → how often
	leaves map[string]int
	marks  int
	order  []string // "+client" or "-client", as heard
}

// listenTo subscribes to the channels of one partition and returns when the server has confirmed all of them.
func listenTo(t testing.TB, b *Bus, channels ...string) *announced {
	t.Helper()
	a := &announced{joins: make(map[string]int), leaves: make(map[string]int)}
	names := make([]string, len(channels))
	for i, c := range channels {
		names[i] = b.key(keyChannel, c)
	}
	ctx := context.Background()
	if b.cluster != nil {
		a.pubsub = b.client.SSubscribe(ctx, names...)
	} else {
		a.pubsub = b.client.Subscribe(ctx, names...)
	}
	for range names {
		if _, err := a.pubsub.Receive(ctx); err != nil {
			t.Fatalf("subscribe: %v", err)
		}
	}
	messages := a.pubsub.Channel(redis.WithChannelSize(100_000))
	a.done.Go(func() {
		for m := range messages {
			msg, err := parseEnvelope(m.Payload)
			if err != nil {
				t.Errorf("message on %s: %v: %q", m.Channel, err, m.Payload)
				continue
			}
			a.mu.Lock()
			switch msg.Kind {
			case KindPublication:
				a.marks++
			case KindJoin:
				a.joins[msg.Info.Client]++
				a.order = append(a.order, "+"+msg.Info.Client)
			case KindLeave:
				a.leaves[msg.Info.Client]++
				a.order = append(a.order, "-"+msg.Info.Client)
			}
			a.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = a.pubsub.Close()
		a.done.Wait()
	})
	return a
}

// heard is how many joins and leaves, of how many clients.
func (a *announced) heard() (joins, leaves int, joined, left int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.joins {
		joins += n
	}
	for _, n := range a.leaves {
		leaves += n
	}
	return joins, leaves, len(a.joins), len(a.leaves)
}

func (a *announced) inOrder() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.order, " ")
}

// wantOrder waits until exactly these were heard.
func (a *announced) wantOrder(t testing.TB, want string) {
	t.Helper()
	eventually(t, func() error {
		if got := a.inOrder(); got != want {
			return fmt.Errorf("heard %q, want %q", got, want)
		}
		return nil
	})
}

// drain publishes a marker on each channel and returns when all were heard, and with them everything that was sent before.
func (a *announced) drain(t testing.TB, b *Bus, channels []string) {
	t.Helper()
	a.mu.Lock()
	want := a.marks + len(channels)
	a.mu.Unlock()
	for _, c := range channels {
		mustPublish(t, b, Publication{Channel: c, Data: []byte("marker")})
	}
	eventually(t, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.marks < want {
			return fmt.Errorf("%d markers, want %d", a.marks, want)
		}
		return nil
	})
}

func info(client string) ClientInfo {
	user, _, _ := strings.Cut(client, "/")
	return ClientInfo{User: user, Client: client, ConnInfo: json.RawMessage(`{"name":"N"}`)}
}

func one(e entry, err error) []entry {
	if err != nil {
		panic(err)
	}
	return []entry{e}
}

func wantMembers(t testing.TB, b *Bus, channel string, clients ...string) {
	t.Helper()
	members, err := b.Presence(t.Context(), channel)
	if err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(members))
	slices.Sort(clients)
	if !slices.Equal(got, clients) {
		t.Errorf("members of %s: %v, want %v", channel, got, clients)
	}
}

// TestFleet runs what must hold on every kind of Redis, each suite in a stage of its own.
func TestFleet(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, o Options) {
		for name, suite := range map[string]func(*testing.T, Options){
			"members": testMembers, "batches": testMembersInBatches,
			"given-up": testLeaseGivenUp, "audit": testLeaseAudit, "nodes": testNodes, "counts": testCounts,
			"lock": testLock, "paused-holder": testLockOfAPausedHolder,
			"survey": testSurvey, "revocations": testRevocations,
		} {
			o := o
			o.Stage = name
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				suite(t, o)
			})
		}
	})
}

func testMembers(t *testing.T, o Options) {
	b := openTest(t, o)
	const room = "chat:lobby"
	p := partition(room)
	a1, a2, z1 := generation{"aaaa", 1}, generation{"aaaa", 2}, generation{"bbbb", 1}
	heard := listenTo(t, b, room)
	ctx := t.Context()
	do := func(what string, want int, n int, err error) {
		t.Helper()
		if err != nil || n != want {
			t.Errorf("%s: %d changed (%v), want %d", what, n, err, want)
		}
	}
	x := one(newEntry(room, info("ann/x"), true))
	y := one(newEntry(room, info("ann/y"), true))
	quiet := one(newEntry(room, info("bob/q"), false))

	n, err := b.enter(ctx, a1, "take", p, x)
	do("enter", 1, n, err)
	n, err = b.enter(ctx, a1, "take", p, x)
	do("enter twice", 0, n, err)
	n, err = b.enter(ctx, a1, "take", p, append(slices.Clone(y), quiet...))
	do("enter two", 2, n, err)
	wantMembers(t, b, room, "ann/x", "ann/y", "bob/q")
	stats, err := b.PresenceStats(ctx, room)
	if err != nil || stats != (PresenceStats{Clients: 3, Users: 2}) {
		t.Errorf("stats %+v, %v", stats, err)
	}
	members, _ := b.Presence(ctx, room)
	if got := members["ann/x"]; got.User != "ann" || string(got.ConnInfo) != `{"name":"N"}` {
		t.Errorf("member %+v", got)
	}

	// x moves to another process and the old one's leave is late.
	n, err = b.enter(ctx, z1, "take", p, x)
	do("move", 0, n, err)
	n, err = b.remove(ctx, a1, "process", "1", p, x)
	do("late leave", 0, n, err)
	n, err = b.enter(ctx, a1, "keep", p, x)
	do("the old node's audit", 0, n, err)
	n, err = b.remove(ctx, a1, "process", "1", p, x)
	do("late leave after an audit", 0, n, err)
	wantMembers(t, b, room, "ann/x", "ann/y", "bob/q")

	// y is entered again under the next generation; the old one is reaped, and a late call of it changes nothing.
	n, err = b.enter(ctx, a2, "keep", p, y)
	do("enter again", 0, n, err)
	n, err = b.enter(ctx, a1, "take", p, y)
	do("late enter", 0, n, err)
	n, err = b.reap(ctx, a1)
	do("reap", 1, n, err) // q alone, and nobody is told
	n, err = b.reap(ctx, a1)
	do("reap twice", 0, n, err)
	wantMembers(t, b, room, "ann/x", "ann/y")
	n, err = b.remove(ctx, a2, "process", "1", p, y)
	do("leave", 1, n, err)
	n, err = b.remove(ctx, a2, "process", "1", p, y)
	do("leave twice", 0, n, err)
	n, err = b.reap(ctx, z1)
	do("reap the other", 1, n, err)
	wantMembers(t, b, room)
	heard.wantOrder(t, "+ann/x +ann/y -ann/y -ann/x")

	// Nothing is left behind.
	if b.cluster == nil {
		if keys := b.client.Keys(ctx, b.prefix+"*").Val(); len(keys) != 0 {
			t.Errorf("keys left: %q", keys)
		}
	}
}

// One past a batch, over several channels of one partition and others.
func testMembersInBatches(t *testing.T, o Options) {
	b := openTest(t, o)
	g := generation{"cccc", 1}
	var entries []entry
	for i := range 2*membersPerScript + 1 {
		entries = append(entries, one(newEntry("chat:busy", info(fmt.Sprint("u/", i)), true))...)
	}
	for i := range 150 {
		entries = append(entries, one(newEntry(fmt.Sprint("chat:", i), info("u/0"), true))...)
	}
	heard := listenTo(t, b, "chat:busy")
	total := 0
	for p, members := range byPartition(slices.Values(entries)) {
		n, err := b.enter(t.Context(), g, "take", p, members)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total != len(entries) {
		t.Errorf("%d entered, want %d", total, len(entries))
	}
	removed, err := b.reap(t.Context(), g)
	if err != nil || removed != len(entries) {
		t.Errorf("%d reaped (%v), want %d", removed, err, len(entries))
	}
	const busy = 2*membersPerScript + 1
	eventually(t, func() error {
		if joins, leaves, joined, left := heard.heard(); joins != busy || leaves != busy || joined != busy || left != busy {
			return fmt.Errorf("%d joins of %d, %d leaves of %d, want %d", joins, joined, leaves, left, busy)
		}
		return nil
	})
}

func TestMemberLimits(t *testing.T) {
	at := ClientInfo{Client: strings.Repeat("c", ClientBytes)}
	if _, err := newEntry("chat:x", at, true); err != nil {
		t.Errorf("client id at the limit: %v", err)
	}
	big := func(n int) ClientInfo {
		return ClientInfo{Client: "c", ConnInfo: json.RawMessage(`"` + strings.Repeat("x", n) + `"`)}
	}
	line, _ := encodeHeader(header{Info: &ClientInfo{Client: "c", ConnInfo: json.RawMessage(`""`)}})
	room := headerBytes - len(line)
	if _, err := newEntry("chat:x", big(room), true); err != nil {
		t.Errorf("client info at the limit: %v", err)
	}
	for name, tt := range map[string]struct {
		channel string
		info    ClientInfo
		want    error
	}{
		"no client":           {"chat:x", ClientInfo{}, ErrInvalid},
		"client one too long": {"chat:x", ClientInfo{Client: at.Client + "c"}, ErrInvalid},
		"info one too long":   {"chat:x", big(room + 1), ErrTooLarge},
		"info no JSON":        {"chat:x", ClientInfo{Client: "c", ChanInfo: json.RawMessage(`{`)}, ErrInvalid},
		"no channel":          {"", info("c"), ErrInvalid},
		"channel too long":    {strings.Repeat("c", limit.ChannelBytes+1), info("c"), ErrInvalid},
		"space in channel":    {"chat x", info("c"), ErrInvalid},
	} {
		_, err := newEntry(tt.channel, tt.info, true)
		t.Run(name, func(t *testing.T) { wantErr(t, err, tt.want) })
	}
}

func TestDiffMembers(t *testing.T) {
	before := map[string]ClientInfo{"a": info("a"), "b": info("b"), "c": info("c")}
	after := map[string]ClientInfo{"b": info("b"), "e": info("e"), "d": info("d")}
	joined, left := DiffMembers(before, after)
	names := func(infos []ClientInfo) (s string) {
		for _, i := range infos {
			s += i.Client
		}
		return s
	}
	if names(joined) != "de" || names(left) != "ac" {
		t.Errorf("joined %q, left %q", names(joined), names(left))
	}
}
