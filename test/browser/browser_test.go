// Package browser tests the page in Chromium, against the built binaries: two browsers of one user on different nodes.
package browser

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tideline/test/fleet"
)

func TestMain(m *testing.M) {
	code := m.Run()
	fleet.RemoveBinaries()
	os.Exit(code)
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

func TestTwoBrowsersOfOneUserOnDifferentNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run")
	}
	if _, err := os.Stat("../../node/page/dist/index.html"); err != nil {
		t.Fatalf("the page is not built: make page (%v)", err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node.js is needed: %v; make setup says what to install", err)
	}
	artifacts, err := filepath.Abs("../artifacts")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(artifacts, 0o755); err != nil {
		t.Fatal(err)
	}
	f := fleet.Start(t, fleet.Options{Nodes: 2})
	p := fleet.Run(t, "browsers", node, []string{"ORIGIN=" + f.URL, "CHROMIUM=" + chromium(t), "ARTIFACTS=" + artifacts}, "two-devices.mjs")
	if code := p.Wait(); code != 0 {
		t.Fatalf("ended with %d; pictures are in test/artifacts\n%s", code, p.Tail())
	}
	for line := range strings.Lines(p.Output()) {
		t.Log(strings.TrimSpace(line))
	}
}
