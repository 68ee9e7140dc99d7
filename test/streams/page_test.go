package streams

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/shared/channel"
)

var exchanges = regexp.MustCompile("(?s)```exchange streams\n(.*?)```")

// The exchanges of docs/protocol.md about streams, played against a node and a real engine.
func TestProtocolPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := exchanges.FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 1 {
		t.Fatalf("%d exchanges of streams on the page", len(blocks))
	}
	e := engineOf(t)
	e.Run(image, "web", "-first", "hello", "-count", "1", "-streams", "1")
	n := startNodes(t, 1, "DOCKER_HOST="+e.Host)[0]
	c, res, err := websocket.DefaultDialer.DialContext(t.Context(), n.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer c.Close()
	var came []any // and is not on the page yet
	for line := range strings.Lines(blocks[0][1]) {
		line = strings.TrimSpace(line)
		if sent, ok := strings.CutPrefix(line, "> "); ok {
			if err := c.WriteMessage(websocket.TextMessage, []byte(strings.ReplaceAll(sent, "OPERATOR", signed(t, channel.RoleOperator)))); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var want any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "< ")), &want); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for {
			if at := slices.IndexFunc(came, func(got any) bool { return like(got, want) }); at >= 0 {
				came = slices.Delete(came, at, at+1)
				break
			}
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			_, frame, err := c.ReadMessage()
			if err != nil {
				t.Fatalf("no %s (%v); came %v", line, err, came)
			}
			for d := json.NewDecoder(strings.NewReader(string(frame))); ; {
				var got any
				if d.Decode(&got) != nil {
					break
				}
				if m, ok := got.(map[string]any); !ok || len(m) > 0 { // pings have nothing to say
					came = append(came, got)
				}
			}
		}
	}
	if len(came) > 0 {
		t.Errorf("not on the page: %v", came)
	}
}

// like reports whether got has all of want; … is anything that is there.
func like(got, want any) bool {
	switch w := want.(type) {
	case string:
		return got == want || w == "…" && got != nil
	case map[string]any:
		g, ok := got.(map[string]any)
		for k := range w {
			ok = ok && like(g[k], w[k])
		}
		return ok
	case []any:
		g, ok := got.([]any)
		ok = ok && len(g) == len(w)
		for i := range w {
			ok = ok && like(g[i], w[i])
		}
		return ok
	}
	return got == want
}
