package conn

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// watcher is a client of unidirectional server-sent events.
type watcher struct{ *stream }

// watch opens a stream of events; lastID, when not empty, is what an EventSource comes back with.
func (n *node) watch(t *testing.T, connect, lastID string) *watcher {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.base()+PathUniSSE+"?"+url.Values{queryConnect: {connect}}.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	w := &watcher{&stream{t: t, n: n, format: formatUniSSE}}
	w.open(r)
	if w.head.StatusCode != http.StatusOK {
		t.Fatal(w.head.Status)
	}
	return w
}

// push reads the next event that has data and is no ping; parts of it must be there. The id is the last that came, as an EventSource has it.
func (w *watcher) push(id *string, parts string) sent {
	w.t.Helper()
	for {
		e := w.must()
		if e.hasID {
			*id = e.id
		}
		if e.data == "" || e.data == "{}" {
			continue
		}
		var got, want map[string]any
		if err := json.Unmarshal([]byte(e.data), &got); err != nil {
			w.t.Fatalf("%s: %v", e.data, err)
		}
		if err := json.Unmarshal([]byte(parts), &want); err != nil {
			w.t.Fatal(err)
		}
		if !contains(got, want) {
			w.t.Fatalf("got  %s\nwant %s", e.data, parts)
		}
		return e
	}
}

func (w *watcher) must() sent {
	w.t.Helper()
	e, err := w.event()
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// end reads the disconnect push, when it says to come back, and the end.
func (w *watcher) end(code int) time.Duration {
	w.t.Helper()
	for {
		e := w.must()
		if !strings.Contains(e.data, `"disconnect"`) {
			continue
		}
		if !strings.Contains(e.data, fmt.Sprintf(`"code":%d,"reason":"`, code)) {
			w.t.Fatalf("%s, want %d", e.data, code)
		}
		if _, err := w.event(); err != io.EOF {
			w.t.Fatalf("after the disconnect push: %v", err)
		}
		ms, err := strconv.Atoi(e.retry)
		if err != nil {
			w.t.Fatalf("retry %q", e.retry)
		}
		return time.Duration(ms) * time.Millisecond
	}
}

// With one recoverable channel nothing is missed and nothing comes twice, over any number of breaks, on whichever node.
func TestWatchingOneChannelResumes(t *testing.T) {
	redis := startRedis(t)
	nodes := []*node{startNode(t, redis.Addr(), "n1", nil), startNode(t, redis.Addr(), "n2", nil)}
	n := nodes[0]
	ask := n.asking(t, token.Claims{User: "ann"}, `"chat:a":{},"system":{}`)
	id, next := "", 1
	w := n.watch(t, ask, id)
	first := w.push(&id, `{"connect":{"ping":25,"data":{"node":"n1"},"subs":{"chat:a":{"recoverable":true},"system":{}}}}`)
	if first.hasID {
		t.Error("the connect push has an id")
	}
	if ms, err := strconv.Atoi(first.retry); err != nil || ms < 1000 || ms >= 5000 {
		t.Errorf("retry %q", first.retry)
	}
	if e := w.must(); e.data != "" || !strings.HasSuffix(e.id, ":0:chat%3Aa") {
		t.Errorf("after it %+v, want the place", e)
	} else {
		id = e.id
	}
	publish := func() { n.publish(t, "chat:a", strconv.Itoa(next)) }
	for round := range 6 {
		for range 3 {
			publish()
			n.publish(t, "system", `"noise"`)
			noise := 0
			for range 2 { // two channels, in either order
				e := w.push(&id, `{"pub":{}}`)
				switch {
				case strings.Contains(e.data, "system"):
					noise++
					if e.hasID {
						t.Error("an id of a channel that can't be recovered")
					}
				case e.id == "" || !strings.HasSuffix(e.id, fmt.Sprintf(":%d:chat%%3Aa", next)):
					t.Errorf("%+v", e)
				default:
					next++
				}
			}
			if noise != 1 {
				t.Fatal("not one of each")
			}
		}
		w.tcp.Close()
		missed := next
		for range round {
			publish()
			next++
		}
		n = nodes[(round+1)%2]
		w = n.watch(t, ask, id)
		e := w.push(&id, `{"connect":{"subs":{"chat:a":{"was_recovering":true,"recovered":true,"recoverable":true},"system":{}}}}`)
		if strings.Contains(e.data, "publications") {
			t.Errorf("publications inside %s", e.data)
		}
		for ; missed < next; missed++ {
			w.push(&id, fmt.Sprintf(`{"channel":"chat:a","pub":{"data":%d,"offset":%d}}`, missed, missed))
			if !strings.HasSuffix(id, fmt.Sprintf(":%d:chat%%3Aa", missed)) {
				t.Errorf("id %s of publication %d", id, missed)
			}
		}
	}
}

// What can't be resumed is said not to be, and goes on from where the channel stands.
func TestWatchingSaysWhatIsNotRecovered(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	top := n.publish(t, "chat:a", `1`)
	n.publish(t, "chat:b", `1`)
	place := func(epoch string, offset int, name string) string {
		return fmt.Sprintf("%s:%d:%s", epoch, offset, url.QueryEscape(name))
	}
	ann := token.Claims{User: "ann", Channels: []string{"chat:token"}}
	for name, c := range map[string]struct {
		subs, id, want string
	}{
		"no id":                              {`"chat:a":{}`, "", `{"chat:a":{"recoverable":true}}`},
		"another epoch":                      {`"chat:a":{}`, place("other.0", 1, "chat:a"), `{"chat:a":{"was_recovering":true}}`},
		"an offset ahead":                    {`"chat:a":{}`, place(top.Epoch, 99, "chat:a"), `{"chat:a":{"was_recovering":true}}`},
		"garbage":                            {`"chat:a":{}`, "17", `{"chat:a":{"was_recovering":true}}`},
		"an id past the limit":               {`"chat:a":{}`, place(top.Epoch, 1, "chat:a") + strings.Repeat("x", lastEventBytes), `{"chat:a":{"was_recovering":true}}`},
		"a channel that isn't watched":       {`"chat:a":{}`, place(top.Epoch, 1, "chat:b"), `{"chat:a":{"was_recovering":true}}`},
		"one of two":                         {`"chat:a":{},"chat:b":{}`, place(top.Epoch, 1, "chat:a"), `{"chat:a":{"recovered":true},"chat:b":{"was_recovering":true}}`},
		"the newer of two places":            {`"chat:a":{"recover":true,"epoch":"old","offset":1}`, place(top.Epoch, 1, "chat:a"), `{"chat:a":{"recovered":true}}`},
		"the request's place, without an id": {fmt.Sprintf(`"chat:a":{"recover":true,"epoch":%q,"offset":1}`, top.Epoch), "", `{"chat:a":{"recovered":true}}`},
		"a channel of the token":             {``, place("x.0", 1, "chat:token"), `{"chat:token":{"was_recovering":true}}`},
		"one that can't be recovered at all": {`"system":null`, place("x.0", 1, "system"), `{"system":{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := n.watch(t, n.asking(t, ann, c.subs), c.id)
			var id string
			e := w.push(&id, fmt.Sprintf(`{"connect":{"subs":%s}}`, c.want))
			if strings.Contains(c.want, "recovered") != strings.Contains(e.data, `"recovered":true`) {
				t.Errorf("%s", e.data)
			}
			if strings.Contains(e.data, "chat:b") && !strings.Contains(c.subs, "chat:b") {
				t.Errorf("subscribed to what only the id names: %s", e.data)
			}
		})
	}
	n2 := strings.Replace(n.asking(t, ann, `"todos:#bob":{}`), "\n", "", -1)
	if after := n.watch(t, n2, place("x.0", 1, "todos:#bob")).end(int(byePermission.code)); after != retryRefused {
		t.Errorf("denied: come back after %v", after)
	}
}

// With several channels the ids come with pings, and each is exactly where the stream stands: what is published around it is neither lost
// nor, if it came before, repeated.
func TestWatchingSeveralChannelsResumes(t *testing.T) {
	redis := startRedis(t)
	n := startNode(t, redis.Addr(), "n1", nil)
	ask := n.asking(t, token.Claims{User: "ann", Channels: []string{"user:#ann"}}, `"chat:a":{},"chat:b":{}`)
	w := n.watch(t, ask, "")
	c := n.only(t)
	ctx, stop := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	ahead := make(chan struct{}, 50) // of what is heard: half of a channel's history, from which the rest is recovered
	for _, name := range []string{"chat:a", "chat:b", "user:#ann"} {
		publishers.Go(func() {
			for {
				select {
				case ahead <- struct{}{}:
					n.publish(t, name, `1`)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	publishers.Go(func() {
		for ctx.Err() == nil {
			c.ping(time.Now())
			time.Sleep(time.Millisecond) // how often, not until when
		}
	})
	heard := map[string]uint64{}
	ids, last := 0, ""
	take := func(e sent) {
		var push struct {
			Channel string
			Pub     *struct{ Offset uint64 }
		}
		if e.hasID {
			ids++
			last = e.id
			for name, at := range parsePlaces(e.id) {
				if len(heard) < 3 { // the first id says where it begins
					heard[name] = at.Offset
				}
				if heard[name] != at.Offset {
					t.Fatalf("an id says %s stands at %d, heard is %d", name, at.Offset, heard[name])
				}
			}
			if n := len(parsePlaces(e.id)); n != 3 {
				t.Fatalf("%d places in %q", n, e.id)
			}
		}
		if e.data == "" {
			return
		}
		if err := json.Unmarshal([]byte(e.data), &push); err != nil {
			t.Fatal(err)
		}
		if push.Pub != nil {
			if e.hasID {
				t.Fatalf("an id of one channel: %+v", e)
			}
			if push.Pub.Offset != heard[push.Channel]+1 {
				t.Fatalf("%s: offset %d after %d", push.Channel, push.Pub.Offset, heard[push.Channel])
			}
			heard[push.Channel]++
			select {
			case <-ahead:
			default: // recovered
			}
		}
	}
	for ids < 200 {
		take(w.must())
	}
	stop()
	publishers.Wait()
	w.tcp.Close()
	n2 := startNode(t, redis.Addr(), "n2", nil)
	w = n2.watch(t, ask, last)
	for name, at := range parsePlaces(last) {
		heard[name] = at.Offset // the rest is heard again
	}
	var id string
	w.push(&id, `{"connect":{"subs":{"chat:a":{"recovered":true},"chat:b":{"recovered":true},"user:#ann":{"recovered":true}}}}`)
	for ids = 0; ids == 0; {
		take(w.must())
	}
	for name := range heard {
		pos, errs := n.bus.Positions(t.Context(), []string{name})
		if errs[0] != nil || heard[name] != pos[0].Offset {
			t.Errorf("%s: heard up to %d of %d", name, heard[name], pos[0].Offset)
		}
	}
}

func TestWatchingEnds(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	for name, c := range map[string]struct {
		connect string
		code    int
		retry   time.Duration
	}{
		"no token":        {`{"subs":{"chat:a":{}}}`, 3500, retryRefused},
		"a bad token":     {`{"token":"a.b.c"}`, 3500, retryRefused},
		"an expired one":  {fmt.Sprintf(`{"token":%q}`, n.token(t, token.Claims{User: "ann", Expires: time.Now().Add(-time.Minute)})), 3005, 0},
		"no such channel": {n.asking(t, token.Claims{User: "ann"}, `"nope:a":{}`), 3501, retryRefused},
	} {
		t.Run(name, func(t *testing.T) {
			after := n.watch(t, c.connect, "").end(c.code)
			if c.retry != 0 && after != c.retry || c.retry == 0 && (after < retryLeast || after >= retryMost) {
				t.Errorf("come back after %v", after)
			}
		})
	}
	for name, c := range map[string]struct{ query, says string }{
		"nothing":      {"", "missing"},
		"an empty one": {"cf_connect=", "missing"},
		"garbage":      {"cf_connect=%7B", "is not a request"},
		"an array":     {"cf_connect=[]", "is not a request"},
	} {
		res, said := n.exchange(t, "GET "+PathUniSSE+"?"+c.query+" HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
		if res.StatusCode != 400 || !strings.Contains(string(said), c.says) {
			t.Errorf("%s: %s %s", name, res.Status, said)
		}
	}
	w := n.watch(t, n.asking(t, token.Claims{User: "ann"}, `"chat:a":{}`), "")
	var id string
	w.push(&id, `{"connect":{}}`)
	if err := n.Drain(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if after := w.end(3001); after < retryLeast || after >= retryMost {
		t.Errorf("a drained one comes back after %v", after)
	}
	n.wantNobody(t)
}

// What docs/protocol.md says of the doors over HTTP in numbers.
func TestProtocolPageHTTP(t *testing.T) {
	page, blocks := protocolPage(t)
	for what, is := range map[string]bool{
		"past 100 requests, then 10 a second":                    limit.StrangersBurst == 100 && limit.StrangersPerSecond == 10,
		"64 MiB of bodies":                                       limit.BodiesBytes == 64<<20,
		"did not take them within 2.5 s":                         limit.CommandBudget == 2500*time.Millisecond,
		"a random time of 1 to 5 s":                              retryLeast == time.Second && retryMost == 5*time.Second,
		"on which coming back is no use, for an hour":            retryRefused == time.Hour,
		"One that would be longer than 4 KiB, some 60 channels,": lastEventBytes == 4<<10,
		"something comes every 25 s":                             limit.PingInterval == 25*time.Second,
	} {
		if !strings.Contains(page, what) || !is {
			t.Errorf("the page says %q: %v; it is so: %v", what, strings.Contains(page, what), is)
		}
	}
	for _, path := range []string{PathStream, PathSSE, PathEmulation, PathUniSSE} {
		if !strings.Contains(page, "`"+path+"`") {
			t.Errorf("the page doesn't have %s", path)
		}
	}
	if len(blocks["sh watch"]) != 1 || len(blocks["js watch"]) != 1 {
		t.Error("test/sdk and test/browser play one example each")
	}
}

// An id at its longest is sent; one past it is empty, so that an EventSource forgets the one that it had.
func TestLongIDs(t *testing.T) {
	name := "chat:" + strings.Repeat("x", limit.ChannelBytes-len("chat:"))
	at := place{name, bus.Position{Epoch: "e.1", Offset: 1}}
	one := len(appendID(nil, at)) - len("id: \n")
	var places []place
	for len(places) < lastEventBytes/(one+1) {
		places = append(places, at)
	}
	rest := lastEventBytes - len(places)*(one+1)
	for i, n := range []int{rest, rest + 1} {
		places := append(places, place{strings.Repeat("y", n-len("e.1:1:")), bus.Position{Epoch: "e.1", Offset: 1}})
		line := string(appendID(nil, places...))
		if i == 0 && len(line) != lastEventBytes+len("id: \n") || i == 1 && line != "id: \n" {
			t.Errorf("%d bytes: a line of %d", lastEventBytes+i, len(line))
		}
		if i == 0 && len(parsePlaces(strings.TrimSpace(strings.TrimPrefix(line, "id: ")))) != 2 {
			t.Error("the longest is not understood")
		}
	}
}

// What a client brings as an id is nothing, or places; places survive the way to a client and back.
func FuzzPlaces(f *testing.F) {
	for _, s := range []string{"", ":", "e.1:3:chat%3Aa", "e.1:3:chat%3Aa,f.2:18446744073709551615:b", "e:1:a,", "e:-1:a", "::", "e:1:%", "e:1:a:b", "\x00:1:\xff"} {
		f.Add(s, "chat:a", uint64(3))
	}
	f.Fuzz(func(t *testing.T, id, name string, offset uint64) {
		for name, at := range parsePlaces(id) {
			if name == "" || at.Epoch == "" {
				t.Errorf("%q: %q at %+v", id, name, at)
			}
		}
		if channel.Validate(name) != nil {
			return
		}
		want := bus.Position{Epoch: "e.1", Offset: offset}
		line := string(appendID(nil, place{name, want}, place{"other", want}))
		got := parsePlaces(strings.TrimSuffix(strings.TrimPrefix(line, "id: "), "\n"))
		if got[name] != want || got["other"] != want || strings.Count(line, "\n") != 1 {
			t.Errorf("%q is understood as %v", line, got)
		}
	})
}
