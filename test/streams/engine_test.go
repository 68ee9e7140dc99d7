package streams

import (
	"testing"
	"time"

	"tideline/test/enginetest"
	"tideline/test/fleet"
)

// The engine is away for a while: that is said once, and what can be had afterwards comes. Over TLS, as to another host.
func TestEngineAway(t *testing.T) {
	t.Parallel()
	e := enginetest.Start(t, enginetest.Options{TLS: true})
	e.Image(image, buildChatter(t))
	nodes := startNodes(t, 2, "DOCKER_HOST="+e.TCP, "DOCKER_CERT_PATH="+e.Certs)
	e.Run(image, "patient")
	viewers := both(t, nodes, "docker:logs:patient")
	events := watch(t, nodes[0], "docker:events")
	for _, v := range viewers {
		v.until(0, patience, "lines", from(10))
	}
	reader(t, nodes, "docker:events")

	// It hangs: connections stay open, nothing is said on them.
	pauses, began := fleet.WatchPauses(t), time.Now()
	e.Pause()
	for _, v := range append(viewers[:], events) {
		v.until(0, 2*patience, "that the engine does not answer", engineAway)
	}
	e.Resume()
	var marks []int
	for _, v := range append(viewers[:], events) {
		marks = append(marks, v.until(0, patience, "that it answers again", note("answers again")))
	}
	for i, v := range viewers {
		v.until(marks[i], patience, "a line of now", ofNow())
		complete(t, "what hung", v.seen()) // its container went on, and all that it wrote was there afterwards
	}

	// It ends, its containers with it, and starts again.
	e.Stop()
	for i, v := range viewers {
		marks[i] = v.until(marks[i], patience, "that the engine does not answer", engineAway)
	}
	e.Start()
	for i, v := range viewers {
		v.until(marks[i], patience, "that it answers again", note("answers again"))
		v.until(marks[i], patience, "that the container is stopped", note("is stopped, exit code"))
	}
	e.Restart("patient")
	for i, v := range viewers {
		n := v.until(marks[i], patience, "that it was started", note("was started"))
		v.until(n, patience, "its lines", from(10))
		if n, pause := count(v.seen(), engineAway), pauses.Since(began); n < 2 || n > 2 && pause < time.Second {
			t.Errorf("the engine's absence was told %d times, it was away twice; the machine paused for %v", n, pause)
		}
	}
	events.until(marks[2], patience, "the start", func(l line) bool { return l.Data != nil && l.Data.Action == "start" && l.Data.Name == "patient" })
}

// A node whose settings name an engine that is not there starts, is ready, and says so to those who ask.
func TestNoEngine(t *testing.T) {
	nodes := startNodes(t, 1, "DOCKER_HOST=unix:///nowhere/docker.sock")
	v := watch(t, nodes[0], "docker:logs:any")
	v.until(0, patience, "that the engine does not answer", engineAway)
}

func count(lines []line, is func(line) bool) (n int) {
	for _, l := range lines {
		if is(l) {
			n++
		}
	}
	return n
}
