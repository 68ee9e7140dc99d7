package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/fleet"
)

// figure reads one figure of a node from its private port.
func figure(t *testing.T, n *fleet.Node, name string) float64 {
	t.Helper()
	res, err := fleet.Client(nil).Get(n.Private + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + `\{[^}]*\} (\S+)$`).FindStringSubmatch(string(page))
	if m == nil {
		t.Fatalf("%s has no %s", n.ID, name)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The canary as it ships, on three node processes: all hear it, a browser can; the node that publishes is killed, and the others miss one at most.
func TestTheCanaryOutlivesTheNodeThatPublishesIt(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run: canaries are ten seconds apart")
	}
	pauses := fleet.WatchPauses(t)
	misses := func() float64 { return float64(pauses.Longer(limit.CanaryWait / 5)) } // that are the machine's
	f := fleet.Start(t, fleet.Options{Nodes: 3})
	ann, _ := guest(t, "ann", f.URL)
	ann.subscribe("system:canary")
	mark := ann.Lines()
	var canary struct {
		Type, Node string
		N, Time    int64
	}
	if err := json.Unmarshal(ann.event(mark, "publication", `"canary"`).Data, &canary); err != nil || canary.Type != "canary" || canary.N == 0 || canary.Time == 0 {
		t.Fatalf("%+v, %v", canary, err)
	}
	heard := func(n *fleet.Node, atLeast float64) {
		t.Helper()
		const within = 5 * limit.CanaryInterval
		for deadline := time.Now().Add(within); figure(t, n, "canary_heard_total") < atLeast; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s has not heard %v canaries within %v", n.ID, atLeast, within)
			}
		}
	}
	var left []*fleet.Node
	var before []float64
	for _, n := range f.Nodes {
		heard(n, 1)
		if missed := figure(t, n, "canary_missed_total"); missed > misses() {
			t.Errorf("%s missed %v", n.ID, missed)
		}
		if open := figure(t, n, "websocket_connections_active"); open > 1 {
			t.Errorf("%s counts %v connections, and ann has one", n.ID, open)
		}
		if n.ID != canary.Node {
			left = append(left, n)
			before = append(before, figure(t, n, "canary_heard_total"))
		}
	}
	if len(left) != 2 {
		t.Fatalf("%s publishes, and is not of the fleet", canary.Node)
	}
	f.Node(canary.Node).Kill()
	for i, n := range left {
		heard(n, before[i]+2)
		if missed := figure(t, n, "canary_missed_total"); missed > 1+misses() {
			t.Errorf("%s missed %v while another took over", n.ID, missed)
		}
	}
	// The next goes without a miss: a drain hands over.
	var next *fleet.Node
	fleet.Poll(t, "another node's canary is heard", func() error {
		last := ""
		for line := range strings.Lines(ann.Output()) {
			if strings.HasPrefix(line, `{"event":"publication","channel":"system:canary"`) {
				last = line
			}
		}
		if err := json.Unmarshal(ann.parse(last).Data, &canary); err != nil {
			return err
		}
		for _, n := range left {
			if n.ID == canary.Node {
				next = n
				return nil
			}
		}
		return fmt.Errorf("%s is the last to publish", canary.Node)
	})
	other := left[0]
	if other == next {
		other = left[1]
	}
	missed := figure(t, other, "canary_missed_total")
	next.Signal(syscall.SIGTERM) // and is soon gone
	heard(other, figure(t, other, "canary_heard_total")+2)
	if now := figure(t, other, "canary_missed_total"); now > missed+misses() {
		t.Errorf("%s missed %v over a drain", other.ID, now-missed)
	}
	t.Logf("the kill cost %s %v canaries, the drain none", other.ID, missed)
}
