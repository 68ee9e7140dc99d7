package streams

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"tideline/node/stream"
	"tideline/shared/channel"
	"tideline/test/enginetest"
)

// What happens to a container is said in its log, once.
func TestContainers(t *testing.T) {
	t.Parallel()
	e := engineOf(t)
	nodes := startNodes(t, 2, "DOCKER_HOST="+e.Host)
	for name, test := range map[string]func(*testing.T, *enginetest.Engine, []*node){
		"restarted and removed": restartedAndRemoved, "flood": flood, "lines of every kind": linesOfEveryKind, "a terminal": terminal,
		"events": dockerEvents, "who may": whoMay, "another one under its name": recreated,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, e, nodes)
		})
	}
}

// both watches a channel through both nodes.
func both(t *testing.T, nodes []*node, name string) [2]*viewer {
	return [2]*viewer{watch(t, nodes[0], name), watch(t, nodes[1], name)}
}

func restartedAndRemoved(t *testing.T, e *enginetest.Engine, nodes []*node) {
	viewers := both(t, nodes, "docker:logs:mayfly")
	for _, v := range viewers {
		v.until(0, patience, "that it is not there", note("no such container"))
	}
	e.Run(image, "mayfly")
	for _, v := range viewers {
		v.until(0, patience, "its lines", from(20))
	}
	e.Restart("mayfly")
	for _, v := range viewers {
		v.until(0, patience, "that it was started", note("was started"))
		n := v.until(0, patience, "the first line of its first life", text("n=0"))
		n = v.until(n, patience, "its first line", text("n=0"))
		v.until(n, patience, "more lines", from(20))
	}
	e.Remove("mayfly")
	var marks []int
	for _, v := range viewers {
		marks = append(marks, v.until(0, patience, "that it was removed", note("was removed")))
	}
	// Nothing more comes until there is one again.
	e.Run(image, "mayfly", "-first", "new")
	for i, v := range viewers {
		n := marks[i]
		v.until(n, patience, "the new one's first line", text("new"))
		v.until(n, patience, "the new one's lines", from(10))
		all := v.seen()
		if next := all[n]; !strings.Contains(next.Note, "another container") {
			t.Errorf("after the removal: %v", next)
		}
		removed := 0
		for i, l := range all {
			if strings.Contains(l.Note, "was removed") {
				removed++
			}
			if strings.Contains(l.Note, "another container") {
				complete(t, "first life", all[:i])
			}
		}
		if removed != 1 {
			t.Errorf("the removal was told %d times", removed)
		}
		complete(t, "the new one", all[n:])
	}
}

// recreated: removed and made again faster than anybody looks.
func recreated(t *testing.T, e *enginetest.Engine, nodes []*node) {
	e.Run(image, "phoenix", "-first", "one")
	v := watch(t, nodes[0], "docker:logs:phoenix")
	v.until(0, patience, "its lines", from(10))
	e.Remove("phoenix")
	e.Run(image, "phoenix", "-first", "two")
	n := v.until(0, patience, "the new one's first line", text("two"))
	v.until(n, patience, "the new one's lines", from(10))
	complete(t, "the new one", v.seen()[n:])
}

// A container that writes as fast as it can is told in numbers, and delays nobody.
func flood(t *testing.T, e *enginetest.Engine, nodes []*node) {
	const total = 200_000
	e.Run(image, "calm")
	calm := watch(t, nodes[0], "docker:logs:calm")
	calm.until(0, patience, "a line", numbered)
	viewers := both(t, nodes, "docker:logs:flood")
	viewers[1].until(0, patience, "that it is not there", note("no such container"))
	began := time.Now()
	e.Run(image, "flood", "-every", "0", "-count", "200000", "-streams", "1")
	for _, v := range viewers {
		sum, next, shown := 0, 0, 0
		v.until(0, 2*patience, "all of it", func(l line) bool {
			if n, ok := number(l); ok {
				if n != next {
					t.Fatalf("line %d where %d should be", n, next)
				}
				sum, next, shown = sum+1, next+1, shown+1
			}
			sum, next = sum+l.Dropped, next+l.Dropped
			return sum >= total
		})
		most := stream.LinesBurst + stream.LinesPerSecond*int(time.Since(began)/time.Second+2)
		if sum != total || shown == total || shown > most {
			t.Errorf("%d lines and dropped ones of %d; %d shown, at most %d expected", sum, total, shown, most)
		}
		t.Logf("%d of %d shown", shown, total)
	}
	// The calm one's lines of that time are all there.
	calm.until(0, patience, "a line of now", ofNow())
	complete(t, "calm", calm.seen())
}

func linesOfEveryKind(t *testing.T, e *enginetest.Engine, nodes []*node) {
	colours := "\x1b[31mred\x1b[0m é \xff <b>&amp;</b>"
	e.Run(image, "kinds", "-long", "100000", "-first", colours)
	for _, v := range both(t, nodes, "docker:logs:kinds") {
		v.until(0, patience, "lines", from(5))
		all := v.seen()
		if l := all[0]; !l.Cut || l.Text != strings.Repeat("x", stream.LineBytes) {
			t.Errorf("a long line: %d bytes, cut %v", len(l.Text), l.Cut)
		}
		if l := all[1]; l.Cut || l.Text != strings.ToValidUTF8(colours, "�") || l.Stream != "stdout" || time.Since(time.UnixMilli(l.Time)).Abs() > time.Minute {
			t.Errorf("a line with colours: %v", l)
		}
		complete(t, "kinds", all)
	}
}

func terminal(t *testing.T, e *enginetest.Engine, nodes []*node) {
	e.RunAs(image, "terminal", true, "-long", "100000", "-first", "hello")
	v := watch(t, nodes[0], "docker:logs:terminal")
	n := v.until(0, patience, "a line", text("hello"))
	if l := v.seen()[n-2]; !l.Cut || len(l.Text) != stream.LineBytes {
		t.Errorf("a long line: %d bytes, cut %v", len(l.Text), l.Cut)
	}
	v.until(n, patience, "lines", from(20))
	next := 0
	for _, l := range v.seen() {
		if i, ok := number(l); ok {
			if i != next || l.Stream != "stdout" {
				t.Errorf("line %d is %v", next, l)
			}
			next = i + 1
		}
	}
}

func dockerEvents(t *testing.T, e *enginetest.Engine, nodes []*node) {
	all, one := both(t, nodes, "docker:events"), both(t, nodes, "docker:events:eve")
	reader(t, nodes, "docker:events")
	reader(t, nodes, "docker:events:eve")
	is := func(action, name string) func(line) bool {
		return func(l line) bool {
			return l.Data != nil && l.Data.Action == action && l.Data.Name == name && l.Data.Type == "container"
		}
	}
	e.Run(image, "eve2")
	e.Run(image, "eve")
	e.Remove("eve")
	for _, v := range append(all[:], one[:]...) {
		n := v.until(0, patience, "that it started", is("start", "eve"))
		n = v.until(n, patience, "that it died", is("die", "eve"))
		v.until(n, patience, "that it is gone", is("destroy", "eve"))
	}
	for _, v := range all {
		v.until(0, patience, "the other one", is("start", "eve2"))
	}
	for _, v := range one {
		for _, l := range v.seen() {
			if l.Data == nil || l.Data.Name != "eve" {
				t.Errorf("in the events of eve: %v", l)
			}
		}
	}
}

func whoMay(t *testing.T, e *enginetest.Engine, nodes []*node) {
	e.Run(image, "secret")
	operator, somebody := connect(t, nodes[0], channel.RoleOperator), connect(t, nodes[0])
	for _, c := range []struct {
		client  *centrifuge.Client
		channel string
		code    uint32
	}{
		{somebody, "docker:logs:secret", 103},
		{somebody, "docker:events", 103},
		{operator, "docker:logs:../../info", 107},
		{operator, "docker:logs:a/b?c=d", 107},
		{operator, "docker:logs:", 107},
		{operator, "docker:logs:x", 107},
		{operator, "docker:events:", 107},
		{operator, "docker:stats:secret", 107},
	} {
		sub, err := c.client.NewSubscription(c.channel)
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 10)
		sub.OnError(func(e centrifuge.SubscriptionErrorEvent) { answered <- e.Error })
		sub.OnSubscribed(func(centrifuge.SubscribedEvent) { answered <- nil })
		if err := sub.Subscribe(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-answered:
			var no centrifuge.SubscriptionSubscribeError
			var code *centrifuge.Error
			if !errors.As(err, &no) || !errors.As(no.Err, &code) || code.Code != c.code {
				t.Errorf("%s: %v, want code %d", c.channel, err, c.code)
			}
		case <-time.After(patience):
			t.Errorf("%s: no answer", c.channel)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := operator.RPC(ctx, "docker.containers", nil)
	var list struct {
		Containers []struct{ ID, Name, Image, State, Status string }
		Total      int
	}
	if err != nil || json.Unmarshal(res.Data, &list) != nil {
		t.Fatalf("docker.containers: %s, %v", res.Data, err)
	}
	found := false
	for _, c := range list.Containers {
		found = found || c.Name == "secret" && c.State == "running" && c.Image == image && len(c.ID) == 64 && c.Status != ""
	}
	if !found || list.Total < len(list.Containers) {
		t.Errorf("docker.containers: %s", res.Data)
	}
	var no *centrifuge.Error
	if _, err := somebody.RPC(ctx, "docker.containers", nil); !errors.As(err, &no) || no.Code != 103 {
		t.Errorf("docker.containers for somebody: %v", err)
	}
}
