// Package e2e tests the built binaries as processes, with the public Centrifuge client from npm in Node.js against them.
package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/fleet"
)

const lobby = "chat:lobby"

func TestMain(m *testing.M) {
	code := m.Run()
	fleet.RemoveBinaries()
	os.Exit(code)
}

// The promise of the project's first page: two devices of one user on different nodes, a stranger, todos and chat; then a node is killed.
func TestTodosAndChatCrossNodesAndOutliveOne(t *testing.T) {
	for _, c := range []struct {
		name     string
		unsticky bool
	}{{"sticky", false}, {"unsticky", true}} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.unsticky {
				t.Skip("the short run has the sticky half")
			}
			f := fleet.Start(t, fleet.Options{Nodes: 2, Unsticky: c.unsticky})
			ann, annNode := guest(t, "ann", f.URL)
			phone, phoneNode := ann.join("phone", f.URL)
			bob, _ := guest(t, "bob", f.URL)
			if annNode == phoneNode {
				t.Fatalf("both devices met %s: nothing would cross", annNode)
			}
			everybody := []*client{ann, phone, bob}
			for _, c := range everybody {
				c.subscribe("todos:#" + c.user)
				c.subscribe(lobby)
			}
			crossing(t, ann, phone, bob, "before")

			dead, left := f.Node(annNode), f.Node(phoneNode)
			mark := ann.Lines()
			dead.Kill()
			if e := ann.event(mark, "connected"); e.Node != left.ID {
				t.Fatalf("reconnected to %q, not to %s", e.Node, left.ID)
			}
			for _, channel := range []string{"todos:#" + ann.user, lobby} {
				if e := ann.event(mark, "subscribed", channel); !e.WasRecovering || !e.Recovered {
					t.Errorf("%s: %+v: what was missed was not recovered", channel, e)
				}
			}
			crossing(t, ann, phone, bob, "after")
			for _, c := range everybody {
				for _, text := range []string{"line before", "line after"} {
					if n := c.count(lobby, text); n != 1 {
						t.Errorf("%s heard %q %d times", c.Name, text, n)
					}
				}
			}
		})
	}
}

// crossing creates a todo on one device and says a line on the other; each hears of the other's, and the stranger of the line alone.
func crossing(t *testing.T, ann, phone, bob *client, when string) {
	t.Helper()
	title := "todo " + when
	status, id := ann.createTodo(title)
	if status != http.StatusCreated || id == "" {
		t.Fatalf("creating a todo answered %d", status)
	}
	for _, c := range []*client{ann, phone} {
		e := c.event(0, "publication", "todos:#"+ann.user, id)
		var change struct {
			Type string
			Todo struct {
				ID, Title string
				Version   uint64
			}
		}
		if err := json.Unmarshal(e.Data, &change); err != nil || change.Type != "todo.created" || change.Todo.Title != title || change.Todo.Version == 0 {
			t.Errorf("%s heard %s (%v)", c.Name, e.Data, err)
		}
	}
	text := "line " + when
	if err := phone.say(text); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{ann, phone, bob} {
		e := c.event(0, "publication", lobby, text)
		var line struct {
			ID, User, Node string
			Time           int64
			Data           struct{ Text string }
		}
		if err := json.Unmarshal(e.Data, &line); err != nil || line.User != ann.user || line.Node == "" || line.ID == "" || line.Time == 0 || line.Data.Text != text {
			t.Errorf("%s heard %s (%v): not stamped as it should be", c.Name, e.Data, err)
		}
	}
	if strings.Contains(bob.Output(), id) {
		t.Errorf("a stranger heard of todo %s", id)
	}
}

func TestStickinessKeepsAVisitorOnItsNode(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run")
	}
	f := fleet.Start(t, fleet.Options{Nodes: 2})
	ann, first := guest(t, "ann", f.URL)
	for range 6 {
		ann.mustDo(nil, "disconnect", nil)
		if node := ann.connect(); node != first {
			t.Errorf("a visitor with a cookie moved from %s to %s", first, node)
		}
	}
	var cookie string
	if ann.mustDo(&cookie, "cookie", args{"name": "AWSALB"}); cookie == "" {
		t.Error("the upgrade set no cookie")
	}
}

// A deploy: SIGTERM to one node. It closes its client with a code that reconnects, and the client misses nothing.
func TestADrainedNodeLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run")
	}
	f := fleet.Start(t, fleet.Options{Nodes: 2, NodeEnv: []string{"DRAIN_GRACE=3s", "DRAIN_WINDOW=500ms"}})
	ann, first := guest(t, "ann", f.URL)
	ann.subscribe(lobby)
	bob, second := guest(t, "bob", f.URL)
	bob.subscribe(lobby)
	if first == second {
		t.Fatalf("both met %s", first)
	}
	leaving, mark := f.Node(first), ann.Lines()
	leaving.Signal(syscall.SIGTERM)
	fleet.Poll(t, "the draining node says so", func() error {
		res, err := fleet.Client(nil).Get(leaving.Private + "/readyz")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable {
			return fmt.Errorf("readyz answers %d", res.StatusCode)
		}
		return nil
	})
	said := 0
	pace := time.NewTicker(time.Second / limit.PublishesPerSecond)
	defer pace.Stop()
	for ; leaving.Running(); said++ {
		<-pace.C
		if err := bob.say(fmt.Sprintf("line-%d.", said)); err != nil {
			t.Fatal(err)
		}
	}
	if e := ann.event(mark, "connecting"); e.Code != 3001 {
		t.Errorf("closed with %d %s, want 3001", e.Code, e.Reason)
	}
	if e := ann.event(mark, "connected"); e.Node != second {
		t.Errorf("reconnected to %s", e.Node)
	}
	if code := leaving.Wait(); code != 0 {
		t.Errorf("the drained node ended with %d", code)
	}
	ann.event(mark, "publication", fmt.Sprintf("line-%d.", said-1))
	for i := range said {
		if n := ann.count(lobby, fmt.Sprintf("line-%d.", i)); n != 1 {
			t.Errorf("line %d of %d was heard %d times", i, said, n)
		}
	}
	t.Logf("%d lines were said during the drain, each heard once", said)
}

func TestASecondSignalEndsADrainAtOnce(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Nodes: 1, NodeEnv: []string{"DRAIN_GRACE=10m"}})
	n := f.Nodes[0]
	n.Signal(syscall.SIGTERM)
	n.Await(`"node draining"`)
	n.Signal(syscall.SIGTERM)
	if code := n.Wait(); code != 1 {
		t.Errorf("ended with %d", code)
	}
}
