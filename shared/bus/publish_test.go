package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/redistest"
)

func TestBus(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, o Options) {
		var skew time.Duration
		o.Now = func() time.Time { return time.Now().Add(skew) }
		b := openTest(t, o)
		t.Run("offsets count from one and history is in order", func(t *testing.T) { suiteOrder(t, b) })
		t.Run("the same id publishes once", func(t *testing.T) { suiteIDs(t, b) })
		t.Run("an id is forgotten after its time", func(t *testing.T) {
			defer func() { skew = 0 }()
			suiteForget(t, b, func(d time.Duration) { skew = d })
		})
		t.Run("older versions are superseded", func(t *testing.T) { suiteVersions(t, b) })
		t.Run("history pages", func(t *testing.T) { suitePages(t, b) })
		t.Run("history is trimmed exactly", func(t *testing.T) { suiteTrim(t, b) })
		t.Run("without history positions are kept", func(t *testing.T) { suiteNoHistory(t, b) })
		t.Run("history expires, the epoch stays", func(t *testing.T) { suiteExpiry(t, b) })
		t.Run("positions of many channels", func(t *testing.T) { suitePositions(t, b) })
		t.Run("every key of a channel may vanish", func(t *testing.T) { suiteKeysVanish(t, b) })
		t.Run("a fence that does not hold refuses", func(t *testing.T) { suiteFence(t, b) })
		t.Run("what is published comes back whole", func(t *testing.T) { suiteFields(t, b) })
		t.Run("bytes that are no JSON stay what they are", func(t *testing.T) { suiteBinary(t, b) })
	})
}

func suiteOrder(t *testing.T, b *Bus) {
	_, top, err := b.History(t.Context(), "chat:order", Page{})
	if err != nil || top.Offset != 0 || top.Epoch == "" {
		t.Fatalf("a new channel's top: %+v, %v", top, err)
	}
	for i := range 5 {
		res := mustPublish(t, b, text("chat:order", "m%d", i))
		if want := (Result{Position: Position{top.Epoch, uint64(i + 1)}}); res != want {
			t.Fatalf("publication %d: %+v, want %+v", i, res, want)
		}
	}
	pubs, now, err := b.Since(t.Context(), "chat:order", Position{top.Epoch, 2})
	if err != nil || now != (Position{top.Epoch, 5}) || len(pubs) != 3 {
		t.Fatalf("since 2: %d publications, top %+v, %v", len(pubs), now, err)
	}
	for i, p := range pubs {
		if p.Offset != uint64(3+i) || string(p.Data) != fmt.Sprintf("m%d", 2+i) || p.Channel != "chat:order" || p.ID == "" || p.Time == 0 {
			t.Errorf("publication %d of history: %+v", i, p)
		}
	}
}

func suiteIDs(t *testing.T, b *Bus) {
	p := text("chat:ids", "once")
	p.ID = "order-17:shipped"
	first := mustPublish(t, b, p)
	mustPublish(t, b, text("chat:ids", "another"))
	again := mustPublish(t, b, p)
	if again.Position != first.Position || !again.Duplicate || first.Duplicate {
		t.Errorf("first %+v, again %+v: want the first position, a duplicate", first, again)
	}
	pubs, top, err := b.Since(t.Context(), "chat:ids", Position{Epoch: first.Position.Epoch})
	if err != nil || len(pubs) != 2 || top.Offset != 2 {
		t.Errorf("%d publications, top %+v, %v: want 2", len(pubs), top, err)
	}
}

func suiteForget(t *testing.T, b *Bus, skew func(time.Duration)) {
	p := text("chat:forget", "once")
	p.ID, p.Key, p.Version = "x", "k", 7
	mustPublish(t, b, p)
	skew(limit.IdempotencyTTL - time.Minute)
	if res := mustPublish(t, b, p); !res.Duplicate {
		t.Errorf("just before its time an id is remembered: %+v", res)
	}
	// Random ids are swept by the publications that follow: they take no room after two minutes.
	for range 30 {
		mustPublish(t, b, text("chat:forget", "filler"))
	}
	skew(limit.IdempotencyTTL + time.Minute)
	if res := mustPublish(t, b, p); res.Duplicate || res.Superseded {
		t.Errorf("after its time an id and a version are forgotten: %+v", res)
	}
	skew(limit.IdempotencyTTL + 10*time.Minute)
	for range 10 {
		mustPublish(t, b, text("chat:forget", "sweep"))
	}
	n, err := b.client.HLen(t.Context(), b.key(keyDedupe, "chat:forget")).Result()
	if err != nil || n > 16 {
		t.Errorf("%d fields remembered, %v: want the expired ones swept", n, err)
	}
	z, err := b.client.ZCard(t.Context(), b.key(keyExpiry, "chat:forget")).Result()
	if err != nil || z != n {
		t.Errorf("%d expiries for %d fields, %v", z, n, err)
	}
}

func suiteVersions(t *testing.T, b *Bus) {
	publish := func(version uint64) Result {
		p := text("todos:#u", "v%d", version)
		p.Key, p.Version, p.ID = "todo-1", version, fmt.Sprintf("todo-1:%d", version)
		return mustPublish(t, b, p)
	}
	for _, step := range []struct {
		version    uint64
		superseded bool
	}{{9, false}, {8, true}, {10, false}, {9, false}, {math.MaxUint64 - 1, false}, {math.MaxUint64 - 2, true}, {math.MaxUint64, false}} {
		res := publish(step.version)
		if step.version == 9 && step.superseded != res.Superseded { // the second time it is the id that is known
			if !res.Duplicate {
				t.Errorf("version 9 again: %+v", res)
			}
			continue
		}
		if res.Superseded != step.superseded {
			t.Errorf("version %d: %+v, want superseded %v", step.version, res, step.superseded)
		}
		if res.Superseded && res.Position.Offset == 0 {
			t.Errorf("version %d: %+v, want the channel's top", step.version, res)
		}
	}
	other := text("todos:#u", "other")
	other.Key, other.Version = "todo-2", 1
	if res := mustPublish(t, b, other); res.Superseded {
		t.Error("versions of different keys are independent")
	}
	same := text("todos:#u", "same version, other id")
	same.Key, same.Version = "todo-2", 1
	if res := mustPublish(t, b, same); !res.Superseded {
		t.Error("an equal version is superseded")
	}
}

func suitePages(t *testing.T, b *Bus) {
	var epoch string
	for i := range 200 {
		epoch = mustPublish(t, b, text("chat:pages", "%d", i+1)).Position.Epoch
	}
	at := func(offset uint64) *Position { return &Position{epoch, offset} }
	for _, c := range []struct {
		name        string
		page        Page
		first, last uint64
		n           int
	}{
		{"position alone", Page{}, 0, 0, 0},
		{"all", Page{Limit: -1}, 1, 200, 200},
		{"first three", Page{Limit: 3}, 1, 3, 3},
		{"last three", Page{Limit: 3, Reverse: true}, 200, 198, 3},
		{"after 150", Page{Limit: -1, Since: at(150)}, 151, 200, 50},
		{"ten after 150", Page{Limit: 10, Since: at(150)}, 151, 160, 10},
		{"after the top", Page{Limit: -1, Since: at(200)}, 0, 0, 0},
		{"before 150", Page{Limit: 100, Since: at(150), Reverse: true}, 149, 50, 100},
		{"before 3", Page{Limit: -1, Since: at(3), Reverse: true}, 2, 1, 2},
		{"before 1", Page{Limit: -1, Since: at(1), Reverse: true}, 0, 0, 0},
		{"before 0", Page{Limit: -1, Since: at(0), Reverse: true}, 0, 0, 0},
		{"after the last number", Page{Limit: -1, Since: at(math.MaxUint64)}, 0, 0, 0},
	} {
		pubs, top, err := b.History(t.Context(), "chat:pages", c.page)
		if err != nil || top != *at(200) || len(pubs) != c.n {
			t.Errorf("%s: %d publications, top %+v, %v: want %d", c.name, len(pubs), top, err, c.n)
			continue
		}
		if c.n > 0 && (pubs[0].Offset != c.first || pubs[c.n-1].Offset != c.last) {
			t.Errorf("%s: %d to %d, want %d to %d", c.name, pubs[0].Offset, pubs[c.n-1].Offset, c.first, c.last)
		}
	}
	_, top, err := b.History(t.Context(), "chat:pages", Page{Limit: 1, Since: &Position{"other", 3}})
	wantErr(t, err, ErrUnrecoverable)
	if top != *at(200) {
		t.Errorf("top with the error: %+v", top)
	}
}

func suiteTrim(t *testing.T, b *Bus) {
	p := text("chat:trim", "x")
	p.History.Size = 10
	var top Position
	for range 25 {
		top = mustPublish(t, b, p).Position
	}
	if pubs, _, err := b.Since(t.Context(), "chat:trim", Position{top.Epoch, 15}); err != nil || len(pubs) != 10 {
		t.Errorf("the last ten: %d, %v", len(pubs), err)
	}
	_, got, err := b.Since(t.Context(), "chat:trim", Position{top.Epoch, 14})
	wantErr(t, err, ErrUnrecoverable)
	if got != top {
		t.Errorf("top with the error: %+v, want %+v", got, top)
	}
	_, _, err = b.Since(t.Context(), "chat:trim", Position{top.Epoch, 26})
	wantErr(t, err, ErrUnrecoverable) // a position that the channel has not reached
	_, _, err = b.Since(t.Context(), "chat:trim", Position{"other.0", 20})
	wantErr(t, err, ErrUnrecoverable)
	if _, err := b.RemoveHistory(t.Context(), "chat:trim"); err != nil {
		t.Fatal(err)
	}
	_, got, err = b.Since(t.Context(), "chat:trim", Position{top.Epoch, 24})
	wantErr(t, err, ErrUnrecoverable)
	if got != top {
		t.Errorf("RemoveHistory keeps the position: %+v, want %+v", got, top)
	}
	if pubs, _, err := b.Since(t.Context(), "chat:trim", top); err != nil || len(pubs) != 0 {
		t.Errorf("a subscriber at the top has missed nothing: %d, %v", len(pubs), err)
	}
	if next := mustPublish(t, b, p).Position; next != (Position{top.Epoch, 26}) {
		t.Errorf("after RemoveHistory: %+v", next)
	}
	// One publication past what one recovery reads.
	long := text("chat:long", "x")
	long.History.Size = 2 * limit.HistoryPage
	for range limit.HistoryPage + 1 {
		top = mustPublish(t, b, long).Position
	}
	if pubs, _, err := b.Since(t.Context(), "chat:long", Position{top.Epoch, 1}); err != nil || len(pubs) != limit.HistoryPage {
		t.Errorf("a whole page: %d, %v", len(pubs), err)
	}
	_, _, err = b.Since(t.Context(), "chat:long", Position{top.Epoch, 0})
	wantErr(t, err, ErrUnrecoverable)
}

func suiteNoHistory(t *testing.T, b *Bus) {
	p := Publication{Channel: "docker:none", Data: []byte("x")}
	first := mustPublish(t, b, p).Position
	second := mustPublish(t, b, p).Position
	if second != (Position{first.Epoch, 2}) {
		t.Errorf("positions without history: %+v, %+v", first, second)
	}
	_, top, err := b.Since(t.Context(), p.Channel, first)
	wantErr(t, err, ErrUnrecoverable)
	if top != second {
		t.Errorf("top: %+v", top)
	}
	// A channel that keeps history, then not, then again: what is between is missing, and that shows.
	kept := text(p.Channel, "kept")
	mustPublish(t, b, kept)
	mustPublish(t, b, p)
	mustPublish(t, b, kept)
	_, _, err = b.Since(t.Context(), p.Channel, Position{first.Epoch, 2})
	wantErr(t, err, ErrUnrecoverable)
	if pubs, _, err := b.Since(t.Context(), p.Channel, Position{first.Epoch, 4}); err != nil || len(pubs) != 1 {
		t.Errorf("since 4: %d, %v", len(pubs), err)
	}
}

func suiteExpiry(t *testing.T, b *Bus) {
	p := text("system:short", "x")
	p.History.TTL = 50 * time.Millisecond
	top := mustPublish(t, b, p).Position
	eventually(t, func() error {
		pubs, now, err := b.History(t.Context(), p.Channel, Page{Limit: -1})
		if err != nil || now != top {
			t.Fatalf("top %+v, %v: want %+v", now, err, top)
		}
		if len(pubs) > 0 {
			return errors.New("history is still there")
		}
		return nil
	})
	if next := mustPublish(t, b, p).Position; next != (Position{top.Epoch, 2}) {
		t.Errorf("after expiry: %+v, want the same epoch and offset 2", next)
	}
	ttl, err := b.client.PTTL(t.Context(), b.key(keyMeta, p.Channel)).Result()
	if err != nil || ttl < limit.MetaTTL-time.Minute {
		t.Errorf("meta lives %v, %v: want %v", ttl, err, limit.MetaTTL)
	}
}

func suitePositions(t *testing.T, b *Bus) {
	const n = 3*positionChunk + 10
	channels := make([]string, n)
	for i := range channels {
		channels[i] = fmt.Sprintf("chat:pos%d", i)
		if i%50 == 0 {
			mustPublish(t, b, text(channels[i], "x"))
		}
	}
	tops, errs := b.Positions(t.Context(), channels)
	for i := range channels {
		want := uint64(0)
		if i%50 == 0 {
			want = 1
		}
		if errs[i] != nil || tops[i].Epoch == "" || tops[i].Offset != want {
			t.Fatalf("%s: %+v, %v: want offset %d", channels[i], tops[i], errs[i], want)
		}
	}
	again, _ := b.Positions(t.Context(), channels)
	for i := range channels {
		if again[i] != tops[i] {
			t.Fatalf("%s: %+v, then %+v", channels[i], tops[i], again[i])
		}
	}
}

// suiteKeysVanish deletes each single key of a channel: either the epoch changes, or it is the stream and recovery says so.
func suiteKeysVanish(t *testing.T, b *Bus) {
	for _, kind := range []string{keyMeta, keyDedupe, keyExpiry, keyStream} {
		name := "chat:vanish-" + kind[:1]
		var before Position
		for i := range 5 {
			before = mustPublish(t, b, text(name, "old%d", i)).Position
		}
		if err := b.client.Del(t.Context(), b.key(kind, name)).Err(); err != nil {
			t.Fatal(err)
		}
		// As many publications as before: offsets are reused, contents are not.
		for i := range 5 {
			mustPublish(t, b, text(name, "new%d", i))
		}
		_, top, err := b.Since(t.Context(), name, Position{before.Epoch, 4})
		wantErr(t, err, ErrUnrecoverable)
		if kind == keyStream {
			if top != (Position{before.Epoch, 10}) {
				t.Errorf("%s: top %+v, want the old epoch at 10", kind, top)
			}
			continue
		}
		if top.Epoch == before.Epoch || top.Offset != 5 {
			t.Errorf("%s: top %+v, want a new epoch at 5", kind, top)
		}
		pubs, _, err := b.Since(t.Context(), name, Position{top.Epoch, 0})
		if err != nil || len(pubs) != 5 || string(pubs[0].Data) != "new0" {
			t.Errorf("%s: new history %d, %v", kind, len(pubs), err)
		}
	}
	// Read first, then published: reading makes the new epoch, and the old stream goes with the old one.
	mustPublish(t, b, text("chat:vanish", "old"))
	if err := b.client.Del(t.Context(), b.key(keyMeta, "chat:vanish")).Err(); err != nil {
		t.Fatal(err)
	}
	pubs, top, err := b.History(t.Context(), "chat:vanish", Page{Limit: -1})
	if err != nil || len(pubs) != 0 || top.Offset != 0 {
		t.Errorf("stream without meta: %d publications, top %+v, %v", len(pubs), top, err)
	}
	if n, err := b.client.Exists(t.Context(), b.key(keyStream, "chat:vanish")).Result(); err != nil || n != 0 {
		t.Errorf("stream without meta is left, %v", err)
	}
}

func suiteFence(t *testing.T, b *Bus) {
	p := text("docker:c", "line")
	p.Fence = &Fence{Lock: "docker:c", Token: "tok-1", Cursor: "line 1"}
	_, err := b.Publish(t.Context(), p)
	wantErr(t, err, ErrFenced) // nobody holds the lock
	lock := b.lockKey(p.Channel, "docker:c")
	if err := b.client.Set(t.Context(), lock, "tok-1", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	p.ID = "line-1"
	if res := mustPublish(t, b, p); res.Position.Offset != 1 {
		t.Errorf("held: %+v", res)
	}
	if err := b.client.Set(t.Context(), lock, "tok-2", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	p.ID, p.Fence.Cursor = "line-2", "line 2"
	_, err = b.Publish(t.Context(), p)
	wantErr(t, err, ErrFenced)
	cursor := func() string {
		v, err := b.client.HGet(t.Context(), b.key(keyMeta, p.Channel), metaCursor+"docker:c").Result()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if c := cursor(); c != "line 1" {
		t.Errorf("cursor %q, want that of the last publication", c)
	}
	// The new holder meets a line that was published before: the cursor moves on all the same.
	p.ID, p.Fence = "line-1", &Fence{Lock: "docker:c", Token: "tok-2", Cursor: "line 1b"}
	if res := mustPublish(t, b, p); !res.Duplicate {
		t.Errorf("published before: %+v", res)
	}
	if c := cursor(); c != "line 1b" {
		t.Errorf("cursor %q after a duplicate", c)
	}
}

func suiteFields(t *testing.T, b *Bus) {
	data := []byte("line\r\nanother\x00\xff{\"a\":1}\n\n")
	p := Publication{
		Channel: "chat:fields", Data: data, ID: `id "quoted" <ü>`, Time: 1234, History: keep,
		Info: &ClientInfo{User: "u", Client: "c", ConnInfo: []byte(`{"a":1}`), ChanInfo: []byte(`[2]`)},
		Tags: map[string]string{"k": "v\n"},
	}
	top := mustPublish(t, b, p).Position
	pubs, _, err := b.Since(t.Context(), p.Channel, Position{top.Epoch, 0})
	if err != nil || len(pubs) != 1 {
		t.Fatal(len(pubs), err)
	}
	got := pubs[0]
	if string(got.Data) != string(data) || got.ID != p.ID || got.Time != 1234 || got.Tags["k"] != "v\n" || got.Info == nil ||
		got.Info.User != "u" || string(got.Info.ConnInfo) != `{"a":1}` || string(got.Info.ChanInfo) != `[2]` {
		t.Errorf("came back as %+v", got)
	}
}

func TestLimitsOfPublications(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	long := func(n int) string { return strings.Repeat("x", n) }
	ok := func(name string, change func(p *Publication)) {
		t.Helper()
		p := text("chat:limits", "x")
		change(&p)
		if _, err := b.Publish(t.Context(), p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused := func(name string, want error, change func(p *Publication)) {
		t.Helper()
		p := text("chat:limits", "x")
		change(&p)
		if _, err := b.Publish(t.Context(), p); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	ok("data at its limit", func(p *Publication) { p.Data = []byte(long(limit.DataBytes)) })
	refused("data past it", ErrTooLarge, func(p *Publication) { p.Data = []byte(long(limit.DataBytes + 1)) })
	ok("id at its limit", func(p *Publication) { p.ID = long(limit.PublicationIDBytes) })
	refused("id past it", ErrTooLarge, func(p *Publication) { p.ID = long(limit.PublicationIDBytes + 1) })
	ok("key at its limit", func(p *Publication) { p.Key, p.Version = long(limit.PublicationIDBytes), 1 })
	refused("key past it", ErrTooLarge, func(p *Publication) { p.Key, p.Version = long(limit.PublicationIDBytes+1), 1 })
	ok("tags at their limit", func(p *Publication) { p.Tags = map[string]string{"k": long(limit.TagsBytes - 1)} })
	refused("tags past it", ErrTooLarge, func(p *Publication) { p.Tags = map[string]string{"k": long(limit.TagsBytes)} })
	ok("channel at its limit", func(p *Publication) { p.Channel = long(limit.ChannelBytes) })
	refused("channel past it", ErrInvalid, func(p *Publication) { p.Channel = long(limit.ChannelBytes + 1) })
	info := func(n int) func(*Publication) {
		return func(p *Publication) {
			p.ID, p.Time = "i", 1
			empty := len(`{"id":"i","time":1,"info":{"user":"","client":""}}`)
			p.Info = &ClientInfo{User: long(n - empty)}
		}
	}
	ok("header at its limit", info(headerBytes))
	refused("header past it", ErrTooLarge, info(headerBytes+1))
	refused("no data", ErrInvalid, func(p *Publication) { p.Data = nil })
	refused("a brace", ErrInvalid, func(p *Publication) { p.Channel = "a{b}" })
	refused("version without key", ErrInvalid, func(p *Publication) { p.Version = 1 })
	refused("key without version", ErrInvalid, func(p *Publication) { p.Key = "k" })
	refused("history without TTL", ErrInvalid, func(p *Publication) { p.History = History{Size: 1} })
	refused("negative history", ErrInvalid, func(p *Publication) { p.History = History{Size: -1} })
	ok("history TTL under the meta's", func(p *Publication) { p.History.TTL = limit.MetaTTL - time.Millisecond })
	refused("history TTL at the meta's", ErrInvalid, func(p *Publication) { p.History.TTL = limit.MetaTTL })
	refused("fence without token", ErrInvalid, func(p *Publication) { p.Fence = &Fence{Lock: "l"} })
	refused("id that is no UTF-8", ErrInvalid, func(p *Publication) { p.ID = "\xff" })
	refused("tag that is no UTF-8", ErrInvalid, func(p *Publication) { p.Tags = map[string]string{"\xff": ""} })
	refused("info that is no JSON", ErrInvalid, func(p *Publication) { p.Info = &ClientInfo{ConnInfo: []byte("{")} })
}

// One read stops at a few megabytes, so that Redis is not held up; recovery then says that it can't be complete.
func TestOneReadIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	p := text("chat:big", "")
	p.Data = make([]byte, limit.DataBytes)
	var top Position
	for range 200 { // 12.5 MiB
		top = mustPublish(t, b, p).Position
	}
	pubs, _, err := b.History(t.Context(), p.Channel, Page{Limit: -1})
	if err != nil || len(pubs) < 64 || len(pubs) > 128 {
		t.Errorf("one page: %d publications, %v: want it to end between 4 and 8 MiB", len(pubs), err)
	}
	_, _, err = b.Since(t.Context(), p.Channel, Position{Epoch: top.Epoch})
	wantErr(t, err, ErrUnrecoverable)
	if pubs, _, err := b.Since(t.Context(), p.Channel, Position{top.Epoch, 150}); err != nil || len(pubs) != 50 {
		t.Errorf("since 150: %d, %v", len(pubs), err)
	}
}

// Rule 6. The server stops for longer than any attempt waits: the call goes on with the same id, and what Redis does with the attempts
// that it finds in its sockets afterwards adds nothing.
func TestPauseDuringPublish(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "given"} {
		s := redistest.Start(t)
		b := openTest(t, Options{URL: s.URL()})
		first := mustPublish(t, b, text("chat:pause", "before")).Position
		s.Pause()
		resume := time.AfterFunc(5*time.Second, s.Resume)
		defer resume.Stop()
		p := text("chat:pause", "during")
		p.ID = id
		res, err := b.Publish(t.Context(), p)
		if err != nil || res.Duplicate || res.Position != (Position{first.Epoch, 2}) {
			t.Fatalf("id %q: %+v, %v: want offset 2, no duplicate", id, res, err)
		}
		if b.Stats().Retries == 0 {
			t.Error("the pause must have made it try again, or this test shows nothing")
		}
		mustPublish(t, b, text("chat:pause", "after"))
		pubs, top, err := b.Since(t.Context(), "chat:pause", Position{Epoch: first.Epoch})
		if err != nil || len(pubs) != 3 || top.Offset != 3 {
			t.Errorf("id %q: %d publications, top %+v, %v: want 3", id, len(pubs), top, err)
		}
	}
}

// The server stops for longer than the call may take: the caller learns that it is unavailable, and repeats it with the same id.
func TestPauseLongerThanPublish(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	b := openTest(t, Options{URL: s.URL()})
	epoch := mustPublish(t, b, text("chat:long", "before")).Position.Epoch
	s.Pause()
	p := text("chat:long", "during")
	p.ID = "given"
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit.PublishTimeout)
	defer cancel()
	_, err := b.Publish(ctx, p)
	if ctx.Err() != nil {
		t.Errorf("publish waited for longer than %v", limit.PublishTimeout)
	}
	wantErr(t, err, ErrUnavailable)
	s.Resume()
	res := mustPublish(t, b, p)
	pubs, _, err := b.Since(t.Context(), p.Channel, Position{Epoch: epoch})
	if err != nil || len(pubs) != 2 || res.Position.Offset != 2 {
		t.Errorf("%d publications, %v, %+v: want one before and one during", len(pubs), err, res)
	}
}

// The answer of a publication is lost on the wire: the call that finds its own publication is no duplicate.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.StartProxy(t, s.Addr())
	b := openTest(t, Options{URL: proxy.URL(), PoolSize: 1})
	mustPublish(t, b, text("chat:lost", "warm"))
	// The script reaches the server; its answer is held back and then cut off.
	published := func() bool { return s.Do("HGET", b.key(keyMeta, "chat:lost"), "o") == "2" }
	done := make(chan error, 1)
	p := text("chat:lost", "x")
	p.ID = "given"
	proxy.PauseAnswers()
	go func() {
		res, err := b.Publish(context.WithoutCancel(t.Context()), p)
		if err == nil && (res.Duplicate || res.Position.Offset != 2) {
			err = fmt.Errorf("%+v: want offset 2, no duplicate", res)
		}
		done <- err
	}()
	eventually(t, func() error {
		if !published() {
			return errors.New("not published yet")
		}
		return nil
	})
	proxy.Cut()
	proxy.Resume()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if res := mustPublish(t, b, p); !res.Duplicate || res.Position.Offset != 2 {
		t.Errorf("another call with the id: %+v, want a duplicate", res)
	}
}

func TestAwayIsUnavailable(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	b := openTest(t, Options{URL: s.URL()})
	s.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := b.Publish(ctx, text("chat:a", "x"))
	wantErr(t, err, ErrUnavailable)
	_, _, err = b.Since(ctx, "chat:a", Position{"e.0", 1})
	wantErr(t, err, ErrUnavailable)
	_, errs := b.Positions(ctx, []string{"chat:a", "chat:b"})
	for _, err := range errs {
		wantErr(t, err, ErrUnavailable)
	}
	_, err = b.RemoveHistory(ctx, "chat:a")
	wantErr(t, err, ErrUnavailable)
	wantErr(t, b.Ping(ctx), ErrUnavailable)
	s.Restart()
	if err := b.Ping(t.Context()); err != nil {
		t.Errorf("back again: %v", err)
	}
	mustPublish(t, b, text("chat:a", "x"))
}
