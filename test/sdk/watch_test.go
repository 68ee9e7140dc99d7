package sdk

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/centrifugal/centrifuge-go"

	"tideline/test/fleet"
)

// The lines of docs/protocol.md that watch a channel on a terminal, as they stand there.
func TestWatchOnATerminal(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```sh watch\n(.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatal("the page has no such lines")
	}
	f := fleet.Start(t, fleet.Options{Nodes: 2})
	p := fleet.Run(t, "terminal", "sh", nil, "-c", strings.ReplaceAll(string(m[1]), "http://localhost:8080", f.URL))
	p.Await(`^data: \{"connect":.*"subs":\{"chat:lobby":`)
	speaker := newGo(t, door{url: strings.Replace(f.URL, "http", "ws", 1) + "/connection/websocket"}, "speaker", nil).up()
	speaker.sub("chat:lobby", centrifuge.SubscriptionConfig{}).up()
	speaker.say("chat:lobby", `{"text":"hello, terminal"}`)
	p.Await(`^data: \{"channel":"chat:lobby","pub":.*hello, terminal`)
	p.Kill()
}
