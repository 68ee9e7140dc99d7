package serverapi

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tideline/node/conn"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/test/redistest"
)

var fence = regexp.MustCompile("(?ms)^```([a-z ]+)\n(.*?)^```$")

// page is a document's text and its code blocks, each with its kind.
func page(t *testing.T, path string) (text string, blocks [][2]string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fence.FindAllStringSubmatch(string(raw), -1) {
		blocks = append(blocks, [2]string{m[1], m[2]})
	}
	return string(raw), blocks
}

// The commands of docs/server-api.md are run by a shell, in the page's order, against one node.
func TestPageCommands(t *testing.T) {
	t.Parallel()
	_, protocol := page(t, "../../docs/protocol.md")
	i := slices.IndexFunc(protocol, func(b [2]string) bool { return b[0] == "json channels" })
	if i < 0 {
		t.Fatal("no namespaces on the protocol's page")
	}
	table, err := channel.Parse([]byte(protocol[i][1]))
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t, redistest.Start(t).URL(), "n1", func(o *conn.Options) { o.Table = table })
	eventually(t, "the node answers", func() bool {
		_, body := n.post("/api/info", "{}")
		l, err := n.sockets.Connections(t.Context(), conn.Query{})
		return err == nil && len(l.Missing) == 0 && strings.Contains(body, `"name":"n1"`)
	})
	ann := n.connect(token.Claims{User: "ann"})
	_, blocks := page(t, "../../docs/server-api.md")
	played := 0
	for i, b := range blocks {
		if b[0] != "sh" {
			continue
		}
		if i+1 == len(blocks) || blocks[i+1][0] != "json" {
			t.Fatalf("no answers to %s", b[1])
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		sh := exec.CommandContext(ctx, "sh", "-eu", "-c", b[1])
		sh.Env = append(os.Environ(), "API="+n.url+"/api", "KEY="+strings.ReplaceAll(key, " ", "-"), "CLIENT="+ann.id)
		var stderr bytes.Buffer
		sh.Stderr = &stderr
		out, err := sh.Output()
		cancel()
		if err != nil {
			t.Fatalf("%s: %v %s (curl is needed)", b[1], err, stderr.Bytes())
		}
		got, wanted := strings.Split(strings.TrimSpace(string(out)), "\n"), strings.Split(strings.TrimSpace(blocks[i+1][1]), "\n")
		if len(got) != len(wanted) {
			t.Fatalf("%s\nanswered %q", b[1], got)
		}
		for j := range got {
			want(t, got[j], wanted[j])
			want(t, strings.ReplaceAll(wanted[j], `"…"`, `0`), `{}`) // the page's is JSON
			played++
		}
	}
	if played < 20 {
		t.Errorf("%d answers on the page", played)
	}
	ann.want(`{"push":{"channel":"open:a","subscribe":{"data":{"why":"invited"}}}}`)
	ann.want(`{"push":{"message":{"data":{"text":"only for you"}}}}`)
	ann.want(`{"push":{"refresh":{}}}`)
	ann.want(`{"push":{"channel":"open:a","unsubscribe":{"code":2000}}}`)
	ann.wantClose(4000, "moved house")
}

var (
	codeRow  = regexp.MustCompile(`(?m)^\| (1\d\d) \| ([^|]+) \| (\d+) \|`)
	limitRow = regexp.MustCompile(`(?m)^\| ([^|]+) \| (\d+s?) \| [^|]+ \|$`)
)

func TestPageCodesAndLimits(t *testing.T) {
	text, _ := page(t, "../../docs/server-api.md")
	var got, wanted []string
	for _, m := range codeRow.FindAllStringSubmatch(text, -1) {
		got = append(got, fmt.Sprint(m[1], m[2], m[3]))
	}
	for _, e := range []*Error{errInternal, errUnauthorized, errUnknownChannel, errNotFound, errLimitExceeded, errBadRequest, errNotAvailable, errTooManyRequests, errUnrecoverable} {
		wanted = append(wanted, fmt.Sprint(fmt.Sprint(e.Code), e.Message, fmt.Sprint(e.status())))
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("codes on the page %q, in the code %q", got, wanted)
	}
	got = nil
	for _, m := range limitRow.FindAllStringSubmatch(text, -1) {
		got = append(got, m[2])
	}
	wanted = strings.Fields(fmt.Sprint(BodyBytes, BroadcastChannels, BatchCommands, limit.DataBytes, limit.TagsBytes, limit.PublicationIDBytes, limit.OrderBytes, InfoBytes,
		WhitelistClients, conn.ChannelsMost, limit.ChannelBytes, 123, int(conn.UntilMost/(24*time.Hour)), RequestsAtOnce, RequestBudget))
	if !slices.Equal(got, wanted) {
		t.Errorf("limits on the page %v, in the code %v", got, wanted)
	}
	for says, so := range map[string]bool{"32 bytes or more": MinKeyBytes == 32, "8 may be valid together": MaxKeys == 8, "every 10 s: to rotate": KeysReread == 10*time.Second,
		"for 7 hours": limit.IdempotencyTTL == 7*time.Hour, "1,000 publications": limit.HistoryPage == 1000, "missed for 15 s": limit.LeaseTTL == 15*time.Second,
		"heartbeat (5 s)": limit.Heartbeat == 5*time.Second, "longer than 10 s": BodyTimeout == 10*time.Second, "111 after 2.5 s": limit.CommandBudget == 2500*time.Millisecond,
		"together with 2 more": versionKeyExtra == 2} {
		if !strings.Contains(text, says) || !so {
			t.Errorf("the page says %q: %v; it is so: %v", says, strings.Contains(text, says), so)
		}
	}
	for file, pattern := range map[string]string{"../../test/serverapi/requirements.txt": `(?m)^cent==(\S+)$`, "../../go.mod": `centrifugal/gocent/v3 (\S+)`} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if m := regexp.MustCompile(pattern).FindSubmatch(raw); m == nil || !strings.Contains(text, "| "+string(m[1])+" |") {
			t.Errorf("%s has %s, the page another", file, m)
		}
	}
	if RequestBudget >= 10*time.Second || RequestBudget <= limit.CommandBudget {
		t.Error("a request must end before libraries give up, and after one command could")
	}
}
