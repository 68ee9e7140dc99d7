package streams

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"tideline/shared/limit"
	"tideline/test/enginetest"
	"tideline/test/fleet"
)

// takeover is how long another node may take until it publishes: the lease, the wait between attempts, and a slow machine.
const takeover = limit.LockTTL + patience

// One node reads, everybody sees every line once; whatever happens to the reader, another one goes on where it was.
func TestTakeover(t *testing.T) {
	t.Parallel()
	e := engineOf(t)
	for name, c := range map[string]func(*testing.T, *enginetest.Engine, string){
		"killed": killed, "stopped": stopped, "cut-off": cutOff, "drained": drained, "left": left,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e.Run(image, "chatter-"+name)
			c(t, e, "docker:logs:chatter-"+name)
		})
	}
}

// watched starts three nodes and two viewers on different ones, and waits until both see lines.
func watched(t *testing.T, e *enginetest.Engine, name string) ([]*node, []*viewer, *node, *viewer) {
	t.Helper()
	nodes := startNodes(t, 3, "DOCKER_HOST="+e.Host)
	viewers := []*viewer{watch(t, nodes[0], name), watch(t, nodes[1], name)}
	for _, v := range viewers {
		v.until(0, patience, "a line", numbered)
	}
	owner := reader(t, nodes, name)
	survivor := viewers[0]
	if owner == nodes[0] {
		survivor = viewers[1]
	}
	if owner == nodes[2] {
		t.Fatalf("the stream runs on a node that nobody watches through")
	}
	return nodes, viewers, owner, survivor
}

// goesOn waits until the survivor sees lines that are later than all that it has seen.
func goesOn(t *testing.T, v *viewer) {
	t.Helper()
	all := v.seen()
	last := 0
	for _, l := range all {
		if n, ok := number(l); ok {
			last = max(last, n)
		}
	}
	v.until(len(all), takeover, "lines after the takeover", from(last+20))
}

func killed(t *testing.T, e *enginetest.Engine, name string) {
	nodes, _, owner, survivor := watched(t, e, name)
	owner.Kill()
	goesOn(t, survivor)
	if now := reader(t, nodes, name); now == owner {
		t.Error("a dead node reads")
	}
	complete(t, "survivor", survivor.seen())
}

func stopped(t *testing.T, e *enginetest.Engine, name string) {
	nodes, _, owner, survivor := watched(t, e, name)
	owner.Signal(syscall.SIGSTOP)
	goesOn(t, survivor)
	mark := owner.Lines()
	owner.Signal(syscall.SIGCONT)
	owner.AwaitAfter(mark, `"stream ends here"`)
	n := len(survivor.seen())
	survivor.until(n, patience, "lines after the old reader woke up", numbered)
	if now := reader(t, nodes, name); now == owner {
		t.Error("the old reader has taken the stream back")
	}
	complete(t, "survivor", survivor.seen())
}

func cutOff(t *testing.T, e *enginetest.Engine, name string) {
	nodes, _, owner, survivor := watched(t, e, name)
	pauses, cut := fleet.WatchPauses(t), time.Now()
	owner.redis.Refuse(true)
	owner.redis.Cut()
	goesOn(t, survivor)
	now := reader(t, nodes, name)
	if now == owner {
		t.Fatal("a node without Redis reads")
	}
	// The old one stopped by itself, before the new one began: by a fifth of the lock's time, unless the machine stood still in between.
	owner.Await(ends)
	before, after := turns(owner, name), turns(now, name)
	stop, start := before[len(before)-1], after[len(after)-1]
	if pause := pauses.Since(cut); stop.Msg != ends || stop.Time.Sub(start.Time) >= pause {
		t.Errorf("the old reader: %v; the new one: %v; the machine paused for %v", stop, start, pause)
	}
	owner.redis.Refuse(false)
	complete(t, "survivor", survivor.seen())
}

func drained(t *testing.T, e *enginetest.Engine, name string) {
	nodes, _, owner, survivor := watched(t, e, name)
	pauses, stopped := fleet.WatchPauses(t), time.Now()
	owner.Signal(syscall.SIGTERM)
	if code := owner.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	goesOn(t, survivor)
	before, after := turns(owner, name), turns(reader(t, nodes, name), name)
	gap := after[len(after)-1].Time.Sub(before[len(before)-1].Time)
	if pause := pauses.Since(stopped); gap > limit.LockTTL/2+pause {
		t.Errorf("the stream of a node that stopped gently was taken over after %v: the lock was not released; the machine paused for %v", gap, pause)
	}
	complete(t, "survivor", survivor.seen())
}

// left: the reader's last viewer goes, and then the last of all.
func left(t *testing.T, e *enginetest.Engine, name string) {
	nodes, viewers, owner, survivor := watched(t, e, name)
	for _, v := range viewers {
		if v != survivor {
			if err := v.sub.Unsubscribe(); err != nil {
				t.Fatal(err)
			}
		}
	}
	owner.Await(ends)
	goesOn(t, survivor)
	complete(t, "survivor", survivor.seen())
	if err := survivor.sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	now := reader(t, nodes, name)
	now.Await(ends)

	// Somebody comes back: what was logged while nobody watched is there, and follows what was published before.
	again := watch(t, nodes[2], name)
	again.until(0, patience, "a line", numbered)
	again.until(0, patience, "a line of now", ofNow())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h, err := again.sub.History(ctx, centrifuge.WithHistoryLimit(1000))
	if err != nil {
		t.Fatal(err)
	}
	whole := &viewer{t: t}
	for _, p := range h.Publications {
		whole.take(p.Data)
	}
	complete(t, "the channel's history", whole.seen())
	complete(t, "who came back", again.seen())
	if first, known := number(again.seen()[0]); !known || !slices.ContainsFunc(whole.seen(), from(first)) {
		t.Errorf("the first line of who came back: %v", again.seen()[0])
	}
}
