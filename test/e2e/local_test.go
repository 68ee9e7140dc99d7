package e2e

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"syscall"
	"testing"
	"time"

	"tideline/test/fleet"
)

// local is `make run` without make: one process with everything embedded.
func local(t *testing.T, env ...string) (p *fleet.Process, origin string) {
	t.Helper()
	p = fleet.Run(t, "local", fleet.Binary(t, "local"), env)
	return p, strings.Replace(p.Await(`^ready (http://\S+)`)[1], "localhost", "127.0.0.1", 1)
}

func TestTheWholeSystemInOneProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run")
	}
	data := t.TempDir()
	fleet.Binary(t, "local") // building it is not starting it
	began := time.Now()
	p, origin := local(t, "PORT=127.0.0.1:0", "DATA_DIR="+data)
	if took := time.Since(began); took > 5*time.Second && !fleet.Race {
		t.Errorf("ready after %v, promised are 5 s", took)
	}
	ann, annNode := guest(t, "ann", origin)
	phone, phoneNode := ann.join("phone", origin)
	if annNode == phoneNode {
		t.Errorf("two browsers met the same node %s", annNode)
	}
	bob, _ := guest(t, "bob", origin)
	for _, c := range []*client{ann, phone, bob} {
		c.subscribe("todos:#" + c.user)
		c.subscribe(lobby)
	}
	crossing(t, ann, phone, bob, "before")

	t.Run("a task reports its progress", func(t *testing.T) {
		ann.subscribe("user:#" + ann.user)
		var started struct{ Status int }
		ann.mustDo(&started, "rest", args{"method": "POST", "path": "/api/tasks", "body": args{"kind": "import", "format": "json", "data": `[{"title":"imported"}]`}})
		if started.Status != http.StatusAccepted {
			t.Fatalf("starting an import answered %d", started.Status)
		}
		ann.event(0, "publication", "user:#"+ann.user, "task.completed")
		phone.event(0, "publication", "todos:#"+ann.user, "todos.changed")
	})
	t.Run("the reference", func(t *testing.T) {
		for _, path := range []string{"/api/docs", "/api/openapi.json"} {
			if res, body := request(t, "GET", origin+path, "", ""); res.StatusCode != 200 || !strings.Contains(string(body), "/api/todos") {
				t.Errorf("%s: %d %.200s", path, res.StatusCode, body)
			}
		}
	})

	t.Run("the operator's link", func(t *testing.T) {
		link := strings.Replace(p.Await(`^operator (http://\S+)`)[1], "localhost", "127.0.0.1", 1)
		for range 2 { // it works as often as it is opened
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			browser := fleet.Client(jar)
			browser.CheckRedirect = nil
			res, err := browser.Get(link)
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("%v %v", res, err)
			}
			res.Body.Close()
			if res, err = browser.Post(origin+"/api/session", "application/json", nil); err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || !strings.Contains(string(body), `"roles":["operator"]`) {
				t.Errorf("%d %s %v", res.StatusCode, body, err)
			}
		}
		if res, _ := request(t, "GET", link[:len(link)-1]+"x", "", ""); res.StatusCode != 404 {
			t.Errorf("a guessed key answered %d", res.StatusCode)
		}
	})

	t.Run("Ctrl-C", func(t *testing.T) {
		mark, began := ann.Lines(), time.Now()
		p.Signal(syscall.SIGINT)
		if code := p.Wait(); code != 0 || time.Since(began) > 5*time.Second && !fleet.Race {
			t.Errorf("ended with %d after %v:\n%s", code, time.Since(began), p.Tail())
		}
		if e := ann.event(mark, "connecting"); e.Code != 3001 {
			t.Errorf("the client was closed with %d %s", e.Code, e.Reason)
		}
	})

	t.Run("restart", func(t *testing.T) {
		mark := ann.Lines()
		_, again := local(t, "PORT="+strings.TrimPrefix(origin, "http://"), "DATA_DIR="+data, "NODES=3", "STICKY=off")
		if again != origin {
			t.Fatal(again)
		}
		ann.event(mark, "connected") // the session's token is still good
		ann.event(mark, "subscribed", lobby)
		var list struct {
			Status int
			Body   struct{ Items []struct{ Title string } }
		}
		ann.mustDo(&list, "rest", args{"method": "GET", "path": "/api/todos"})
		if len(list.Body.Items) != 2 || list.Body.Items[0].Title != "imported" || list.Body.Items[1].Title != "todo before" {
			t.Errorf("todos after the restart: %+v", list)
		}
		phone.Kill() // who stays would make its node the busier one
		bob.Kill()
		nodes := map[string]bool{}
		for range 12 {
			ann.mustDo(nil, "disconnect", nil)
			nodes[ann.connect()] = true
		}
		if len(nodes) != 3 {
			t.Errorf("12 sockets without stickiness met %v of 3 nodes", nodes)
		}
	})
}

func TestATakenPortIsAClearError(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run")
	}
	_, origin := local(t, "PORT=127.0.0.1:0", "DATA_DIR="+t.TempDir())
	second := fleet.Run(t, "second", fleet.Binary(t, "local"), []string{"PORT=" + strings.TrimPrefix(origin, "http://"), "DATA_DIR=" + t.TempDir()})
	if code := second.Wait(); code != 1 || !strings.Contains(second.Output(), "is taken by another program") {
		t.Errorf("%d: %s", code, second.Output())
	}
}

func TestTheNodeReportsAllMistakesOfItsSettings(t *testing.T) {
	p := fleet.Run(t, "node", fleet.Binary(t, "node"), []string{"PORT=x", "REDIS_URL=http://h", "DRAIN_GRACE=soon"})
	if code := p.Wait(); code != 1 {
		t.Errorf("ended with %d", code)
	}
	for _, name := range []string{"PORT", "REDIS_URL", "TOKEN_SECRETS", "DRAIN_GRACE"} {
		if !strings.Contains(p.Output(), "  "+name+": ") {
			t.Errorf("%s is not reported:\n%s", name, p.Output())
		}
	}
	v := fleet.Run(t, "version", fleet.Binary(t, "node"), nil, "--version")
	if code := v.Wait(); code != 0 || !strings.HasPrefix(v.Output(), "tideline ") {
		t.Errorf("--version: %d %s", code, v.Output())
	}
}
