// Package browser tests the page in Chromium, against the built binaries: local, and nodes, functions and Redis as processes that fail under it.
//
// A scene is a script beside this file; the driver that the scripts share is the page's own (web/scripts). Pictures of all states, in both
// themes and at two widths, go to test/artifacts/page.
package browser

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tideline/test/fleet"
	"tideline/test/redistest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	fleet.RemoveBinaries()
	os.Exit(code)
}

func TestEveryState(t *testing.T) {
	needBrowser(t)
	t.Parallel() // most of a scene is waiting
	p := fleet.Run(t, "local", fleet.Binary(t, "local"), []string{"PORT=127.0.0.1:0", "DATA_DIR=" + t.TempDir()})
	numeric := func(s string) string { return strings.Replace(s, "localhost", "127.0.0.1", 1) }
	origin := numeric(p.Await(`^ready (http://\S+)`)[1])
	operator := numeric(p.Await(`^operator (http://\S+)`)[1])
	play(t, "states", origin, nil, "OPERATOR="+operator)
}

func TestTwoBrowsersOfOneUserOnDifferentNodes(t *testing.T) {
	needBrowser(t)
	t.Parallel() // most of a scene is waiting
	play(t, "two-devices", fleet.Start(t, fleet.Options{Nodes: 2}).URL, nil)
}

// TestFaultsUnderThePage has one fleet for all faults: each leaves it as it found it, but for the drained node of the last.
func TestFaultsUnderThePage(t *testing.T) {
	needBrowser(t)
	t.Parallel() // most of a scene is waiting
	f := fleet.Start(t, fleet.Options{Nodes: 2})

	t.Run("the network", func(t *testing.T) {
		cable := redistest.StartProxy(t, strings.TrimPrefix(f.URL, "http://"))
		play(t, "network", f.URL, verbs{
			"cut":  func(string) string { cable.Refuse(true); cable.Cut(); return "" },
			"mend": func(string) string { cable.Refuse(false); return "" },
		}, "CABLE=http://"+cable.Addr())
	})
	t.Run("the session", func(t *testing.T) {
		play(t, "session", f.URL, verbs{"brief-token": func(user string) string { return briefToken(t, user) }})
	})
	t.Run("Redis", func(t *testing.T) {
		play(t, "redis", f.URL, verbs{
			"redis-stop":  func(string) string { f.Redis.Stop(); return "" },
			"redis-start": func(string) string { f.Redis.Restart(); whole(t, f); return "" },
		})
	})
	t.Run("a slow tab", func(t *testing.T) {
		play(t, "slow", f.URL, verbs{"flood": func(room string) string { return flood(t, f.Redis.URL(), room) }})
	})
	t.Run("nodes", func(t *testing.T) {
		play(t, "nodes", f.URL, verbs{
			"kill":  func(id string) string { f.Node(id).Kill(); return "" },
			"start": func(id string) string { startAgain(t, f, id); return "" },
			"drain": func(id string) string { f.Node(id).Signal(terminate); return "" },
		})
	})
}

// needBrowser says what is missing. A test without its browser fails.
func needBrowser(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not in the short run")
	}
	if _, err := os.Stat("../../node/page/dist/index.html"); err != nil {
		t.Fatalf("the page is not built: make page (%v)", err)
	}
	if _, err := os.Stat("../../web/node_modules/playwright-core"); err != nil {
		t.Fatalf("the page's packages are not installed: make setup (%v)", err)
	}
}

// chromium is CHROMIUM, or what the machine has of it.
func chromium(t *testing.T) string {
	t.Helper()
	candidates := []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome",
		"/Applications/Chromium.app/Contents/MacOS/Chromium", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"}
	for _, c := range candidates {
		if path, err := exec.LookPath(c); c != "" && err == nil {
			return path
		}
	}
	t.Fatal("no Chromium: make setup installs it, or says how; CHROMIUM names one that is elsewhere")
	return ""
}

// artifacts is the folder of pictures, outside of what is committed.
func artifacts(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../artifacts/page")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
