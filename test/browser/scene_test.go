package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/token"
	"tideline/test/fleet"
)

const terminate = syscall.SIGTERM

// verbs are what a scene may ask for. Each answers one line.
type verbs map[string]func(arg string) string

// lineTimeout bounds the wait for a scene's next line. Several waits of the page's driver may lie between two, and pictures.
const lineTimeout = 5 * time.Minute

// play runs a scene's script to its end. Every line of it is a sign of life.
func play(t *testing.T, scene, origin string, may verbs, env ...string) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node.js is needed: %v; make setup says what to install", err)
	}
	began := time.Now()
	env = append([]string{"ORIGIN=" + origin, "CHROMIUM=" + chromium(t), "ARTIFACTS=" + artifacts(t), "SCENE=" + scene}, env...)
	p := fleet.Run(t, scene, node, env, scene+".mjs")
	for n := 1; ; n++ {
		line := p.AwaitWithin(lineTimeout, 0, fmt.Sprintf(`^(step|ask|end) %d (.*)$`, n))
		switch kind, text := line[1], line[2]; kind {
		case "step":
			t.Log(text)
		case "ask":
			verb, arg, _ := strings.Cut(text, " ")
			do := may[verb]
			if do == nil {
				t.Fatalf("%s asks for %q", scene, text)
			}
			if _, err := io.WriteString(p.Stdin, do(arg)+"\n"); err != nil {
				t.Fatalf("answer %q: %v", text, err)
			}
		case "end":
			if code := p.Wait(); code != 0 {
				t.Fatalf("ended with %d\n%s", code, p.Tail())
			}
			t.Logf("%s took %v", scene, time.Since(began).Round(100*time.Millisecond))
			return
		}
	}
}

// startAgain puts a new process in the place of a node that was killed, on its addresses, and waits until the load balancer sends visitors there.
func startAgain(t *testing.T, f *fleet.Fleet, id string) {
	t.Helper()
	old := f.Node(id)
	n := f.StartNode("NODE_ID="+id, "PORT="+strings.TrimPrefix(old.URL, "http://"), "PRIVATE_PORT="+strings.TrimPrefix(old.Private, "http://"))
	old.Process = n.Process
	fleet.Poll(t, "the load balancer sends visitors to "+id, func() error {
		res, err := fleet.Client(nil).Get(f.URL + "/")
		if err != nil {
			return err
		}
		res.Body.Close()
		if got := res.Header.Get("X-Tideline-Node"); got != id {
			return fmt.Errorf("%d from %q", res.StatusCode, got)
		}
		return nil
	})
}

// whole waits until every node says that it has Redis: each finds out in its own time.
func whole(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	for _, n := range f.Nodes {
		fleet.Poll(t, n.ID+" has Redis", func() error {
			res, err := fleet.Client(nil).Get(n.Private + "/readyz")
			if err != nil {
				return err
			}
			defer res.Body.Close()
			var body struct{ Status string }
			if err := json.NewDecoder(res.Body).Decode(&body); err != nil || body.Status != "ready" {
				return fmt.Errorf("it is %q (%v)", body.Status, err)
			}
			return nil
		})
	}
}

const (
	// floodLines of floodBytes each: more than a node keeps for one client (1 MiB) and the kernel takes; less than the history of a room.
	floodLines = 900
	floodBytes = 8 << 10
)

// flood publishes to a room, as a node would for its clients, and answers the last message's text.
func flood(t *testing.T, redis, room string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b, err := bus.Open(ctx, bus.Options{URL: redis, Stage: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ns, err := channel.Shipped().Lookup(room)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for n := range floodLines {
		text = fmt.Sprintf("flood %d of %d", n+1, floodLines)
		// The page shows data.text; the rest is weight.
		data, err := json.Marshal(map[string]any{"id": fmt.Sprintf("flood-%d", n), "user": "guest-flood", "time": time.Now().UnixMilli(), "node": "test",
			"data": map[string]string{"text": text, "ballast": strings.Repeat("x", floodBytes)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Publish(ctx, bus.Publication{Channel: room, Data: data, ID: fmt.Sprintf("flood-%d", n),
			History: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL}}); err != nil {
			t.Fatalf("publish %d: %v", n, err)
		}
	}
	return text
}

// briefToken is an access token that expires within seconds.
func briefToken(t *testing.T, user string) string {
	t.Helper()
	s, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(token.Claims{User: user, Expires: time.Now().Add(6 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
