package docker

import (
	"fmt"
	"testing"
	"time"

	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const ms = int64(time.Millisecond)

// taken feeds times to a resumption and answers which things came out, by number, with "gap" where one was announced.
func taken(want position, times ...int64) (got []any) {
	r := resumption[int]{want: want}
	for i, at := range times {
		out, gap := r.take(at, i)
		if gap {
			got = append(got, "gap")
		}
		for _, s := range out {
			got = append(got, s.item)
		}
	}
	return got
}

func TestResumption(t *testing.T) {
	const at = 1000 * ms
	for _, c := range []struct {
		name  string
		want  position
		times []int64
		got   string
	}{
		{"nobody read before", position{}, []int64{at, at + 1}, "[0 1]"},
		{"after the position", position{at, 1}, []int64{at - ms, at, at + ms}, "[2]"},
		{"the second of one time", position{at, 2}, []int64{at, at, at, at + 1}, "[2 3]"},
		{"equal times apart", position{at, 2}, []int64{at, at + ms, at, at + 2*ms}, "[3]"},
		{"earlier time after the position", position{at, 1}, []int64{at, at - ms, at + ms}, "[1 2]"},
		{"later time before the position", position{at, 1}, []int64{at + ms, at, at + 2*ms}, "[2]"},
		{"the position is gone", position{at, 1}, []int64{at + 200*ms, at + 300*ms}, "[gap 0 1]"},
		{"gone, the next are near", position{at, 1}, []int64{at + ms, at + 2*ms, at + 200*ms}, "[gap 0 1 2]"},
		{"just within the disorder", position{at, 1}, []int64{at + 100*ms, at}, "[]"},
		{"just past it", position{at, 1}, []int64{at + 100*ms + 1}, "[gap 0]"},
	} {
		if got := fmt.Sprint(taken(c.want, c.times...)); got != c.got {
			t.Errorf("%s: %s, want %s", c.name, got, c.got)
		}
	}
}

func TestResumptionHoldsNoMoreThanItsBound(t *testing.T) {
	times := make([]int64, heldMost+1)
	for i := range times {
		times[i] = 1000*ms + 1 + int64(i)
	}
	if got := taken(position{1000 * ms, 1}, times[:heldMost-1]...); len(got) != 0 {
		t.Errorf("gave up after %d", heldMost-1)
	}
	if got := taken(position{1000 * ms, 1}, times...); len(got) != heldMost+2 || got[0] != "gap" {
		t.Errorf("%d came out", len(got))
	}
}

// Wherever the reading is broken off, the one that goes on at the last thing's position passes on exactly the rest.
func TestResumptionAnywhere(t *testing.T) {
	times := []int64{5, 5, 6, 5, 7, 7, 7, 6, 8, 9, 9, 8, 10}
	for i := range times {
		times[i] += 1000 * ms
	}
	first := resumption[int]{}
	for i, at := range times {
		out, _ := first.take(at, i)
		got := taken(out[0].position, times...)
		want := []any{}
		for j := i + 1; j < len(times); j++ {
			want = append(want, j)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("after %d: %v, want %v", i, got, want)
		}
	}
}

func TestCursor(t *testing.T) {
	c := cursor{position: position{7, 2}, Container: "abc", Started: "then", Said: saidAway, Mid: "stdout"}
	got, err := parseCursor(c.String())
	if err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseCursor("{"); err == nil {
		t.Error("half a cursor was taken")
	}
	if s := since(position{Time: 3_000_000_005}); s != "2.900000005" {
		t.Errorf("since %s", s)
	}
}

func TestNames(t *testing.T) {
	long := "docker:logs:a" + fmt.Sprintf("%0127d", 0)
	for name, ok := range map[string]bool{
		"docker:logs:web": true, "docker:logs:web_1.x-y": true, "docker:events": true, "docker:events:web": true, long: true,
		"docker:logs:": false, "docker:logs": false, "docker:logs:a": false, "docker:logs:-web": false, "docker:logs:a/b": false, "docker:logs:a..%2f": false,
		"docker:events:": false, "docker:stats:web": false, "docker:": false, "docker": false, "logs:web": false, long + "0": false, "docker:logs:web:x": false,
	} {
		if _, err := parse(name); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct {
		host, certs string
		ok          bool
	}{
		{"unix:///var/run/docker.sock", "", true}, {"tcp://10.0.0.5:2376", "", true}, {"tcp://10.0.0.5:2376", t.TempDir(), false},
		{"unix://relative", "", false}, {"unix:", "", false}, {"tcp://host", "", false}, {"ssh://host:22", "", false}, {"/var/run/docker.sock", "", false},
		{"unix:///var/run/docker.sock", t.TempDir(), false},
	} {
		if err := CheckHost(c.host, c.certs); (err == nil) != c.ok {
			t.Errorf("%s %q: %v", c.host, c.certs, err)
		}
	}
}
