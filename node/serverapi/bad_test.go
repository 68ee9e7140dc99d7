package serverapi

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/node/conn"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/test/redistest"
)

// alone is one node, for what needs no other.
func alone(t *testing.T) *node {
	t.Helper()
	n := startNode(t, redistest.Start(t).URL(), "n1", nil)
	eventually(t, "the node answers", func() bool {
		l, err := n.sockets.Connections(t.Context(), conn.Query{})
		nodes, wrong := n.bus.Nodes(t.Context())
		return err == nil && len(l.Missing) == 0 && wrong == nil && len(nodes) == 1
	})
	return n
}

func TestWhatIsRefusedNamesTheField(t *testing.T) {
	t.Parallel()
	n := alone(t)
	for _, c := range []struct{ method, body, answer string }{
		{"publish", `{`, `107 bad request: the JSON has no end`},
		{"publish", `{"channel":}`, `107 bad request: not JSON at byte 12`},
		{"publish", `[]`, `107 bad request: not a JSON object`},
		{"publish", `null`, `107 bad request: not a JSON object`},
		{"publish", "{\"channel\":\"\xff\"}", `107 bad request: not UTF-8`},
		{"publish", `{} {}`, `107 bad request: something stands behind the JSON object`},
		{"publish", `{"chanel":"a"}`, `107 bad request: unknown field "chanel"`},
		{"publish", `{"channel":7}`, `107 bad request: channel: a JSON number is not taken there`},
		{"publish", `{"channel":"open:a","data":1,"tags":{"a":1}}`, `107 bad request: tags: a JSON number is not taken there`},
		{"publish", ``, `107 bad request: data: required, and not null`},
		{"publish", `{"channel":"open:a","data":null}`, `107 bad request: data: required, and not null`},
		{"publish", `{"data":1}`, `107 bad request: channel`},
		{"publish", `{"channel":"nope:a","data":1}`, `102 unknown channel`},
		{"publish", `{"channel":"open:a","data":1,"b64data":"MQ=="}`, `107 bad request: data and b64data exclude each other`},
		{"publish", `{"channel":"open:a","b64data":"!"}`, `107 bad request: b64data: not base64`},
		{"publish", `{"channel":"open:a","b64data":"/w=="}`, `108 not available: b64data: the channel takes only JSON`},
		{"publish", `{"channel":"open:a","data":1,"skip_history":true}`, `108 not available: skip_history: every publication of this channel has its place in the history`},
		{"publish", `{"channel":"open:a","data":1,"delta":true}`, `108 not available: delta: publications are sent whole`},
		{"publish", `{"channel":"open:a","data":1,"version_epoch":"x"}`, `107 bad request: version: required with version_epoch and key`},
		{"publish", `{"channel":"open:a","data":1,"version":-1}`, `107 bad request: version: a JSON number -1 is not taken there`},
		{"broadcast", `{"data":1}`, `107 bad request: channels: none`},
		{"subscribe", `{"channel":"open:a"}`, `107 bad request: user: required, or client, or session`},
		{"subscribe", `{"user":"ann"}`, `107 bad request: channel`},
		{"subscribe", `{"user":"ann","channel":"nope:a"}`, `102 unknown channel`},
		{"subscribe", `{"user":"ann","channel":"plain:a","info":{}}`, `108 not available: info: the channel keeps no presence`},
		{"subscribe", `{"user":"ann","channel":"plain:a","recover_since":{"offset":1}}`, `108 not available: recover_since: the channel keeps no history`},
		{"subscribe", `{"user":"ann","channel":"plain:a","override":{"presence":{"value":true}}}`, `108 not available: override.presence: the channel's namespace decides, and it says false`},
		{"subscribe", `{"user":"ann","channel":"open:a","override":{"force_recovery":{"value":false}}}`, `108 not available: override.force_recovery: the channel's namespace decides, and it says true`},
		{"subscribe", `{"user":"ann","channel":"plain:a","recover":true}`, `108 not available: recover: the channel's namespace decides, and it says false`},
		{"subscribe", `{"user":"ann","channel":"open:a","expire_at":1}`, `107 bad request: expire_at: a time in Unix seconds, ahead of now by less than 3650 days`},
		{"subscribe", `{"user":"ann","channel":"open:a","b64data":"/w=="}`, `108 not available: b64data: only JSON`},
		{"subscribe", `{"user":"ann","channel":"open:a","recover_since":{"offset":1,"epoch":"e","x":1}}`, `107 bad request: unknown field "x"`},
		{"unsubscribe", `{"user":"ann","channel":"open:a","unsubscribe":{"code":1999,"reason":"x"}}`, `107 bad request: unsubscribe: a code from 2000 to 2999 and a reason, which is 1 to 123 bytes of text and no JSON`},
		{"unsubscribe", `{"user":"ann","channel":"open:a","unsubscribe":{"code":3000,"reason":"x"}}`, `107 …`},
		{"disconnect", `{"channel":"open:a"}`, `107 bad request: unknown field "channel"`},
		{"disconnect", `{}`, `107 bad request: user: required, or client, or session`},
		{"disconnect", `{"user":"ann","disconnect":{"code":2999,"reason":"x"}}`, `107 bad request: disconnect: a code from 3000 to 4999 and a reason, which is 1 to 123 bytes of text and no JSON`},
		{"disconnect", `{"user":"ann","disconnect":{"code":5000,"reason":"x"}}`, `107 …`},
		{"disconnect", `{"user":"ann","disconnect":{"code":4000,"reason":""}}`, `107 …`},
		{"disconnect", `{"user":"ann","disconnect":{"code":4000,"reason":"{}"}}`, `107 …`},
		{"disconnect", `{"user":"ann","disconnect":{"code":4000,"reason":"x","reconnect":false}}`, `107 bad request: disconnect.reconnect: clients go by the code, and 4000 says true`},
		{"refresh", `{"user":"ann","expire_at":1}`, `107 …`},
		{"refresh", `{"user":"ann","expire_at":9999999999,"expired":true}`, `107 bad request: expired and expire_at exclude each other`},
		{"refresh", `{"user":"ann","info":{}}`, `107 bad request: unknown field "info"`},
		{"send", `{"user":"ann"}`, `107 bad request: data: required, and not null`},
		{"history", `{"channel":"plain:a"}`, `108 not available: the channel keeps no history`},
		{"history", `{"channel":"open:a","limit":-2}`, `107 bad request: limit: a number, or -1 for a whole page`},
		{"history_remove", `{"channel":"plain:a"}`, `108 not available: the channel keeps no history`},
		{"presence", `{"channel":"plain:a"}`, `108 not available: the channel keeps no presence`},
		{"presence_stats", `{"channel":"open:{"}`, `107 bad request: channel`},
		{"channels", `{"pattern":"["}`, `107 bad request: pattern: pattern not understood: [ without anything and ]`},
		{"connections", `{"expression":"x"}`, `108 not available: expression: select by user, client, session, channel and node`},
		{"info", `{"x":1}`, `107 bad request: unknown field "x"`},
		{"rpc", `{}`, `104 not found: method: no such call`},
		{"batch", `{}`, `107 bad request: commands: none`},
		{"batch", `{"commands":[7]}`, `107 bad request: commands: a JSON number is not taken there`},
	} {
		code, message, _ := strings.Cut(c.answer, " ")
		if message != "…" {
			message = fmt.Sprintf(`,"message":%q`, message)
		} else {
			message = ""
		}
		n.t = t
		n.call(c.method, c.body, fmt.Sprintf(`{"error":{"code":%s%s}}`, code, message))
	}
	if status, body := n.post("/api/nothing", "{}"); status != http.StatusNotFound || body != `{"error":{"code":104,"message":"not found"}}` {
		t.Errorf("an unknown method: %d %s", status, body)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/api/info", nil)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := do(t, r); status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", status)
	}
}

// With the header that asks for it, errors have the status that the public API gives them.
func TestTransportErrorMode(t *testing.T) {
	t.Parallel()
	n := alone(t)
	for _, c := range []struct {
		method, body string
		status       int
		answer       string
	}{
		{"publish", `{}`, 400, `{"code":107,"message":"bad request: data: required, and not null"}`},
		{"publish", `{"channel":"nope:a","data":1}`, 404, `{"code":102,"message":"unknown channel"}`},
		{"presence", `{"channel":"plain:a"}`, 400, `{"code":108,"message":"not available: the channel keeps no presence"}`},
		{"nothing", `{}`, 404, `{"code":104,"message":"not found"}`},
		{"history", `{"channel":"open:a","since":{"epoch":"x","offset":1},"limit":1}`, 416, `{"code":112,"message":"unrecoverable position: since: the channel has another epoch"}`},
		{"publish", `{"channel":"open:a","data":1}`, 200, ``},
	} {
		status, got := n.post("/api/"+c.method, c.body, "X-Centrifugo-Error-Mode", "transport")
		if status != c.status || c.answer != "" && got != c.answer {
			t.Errorf("%s %s: %d %s", c.method, c.body, status, got)
		}
	}
	if status, got := n.post("/api/info", `{}`, "X-Centrifugo-Error-Mode", "transport", "X-API-Key", "wrong"); status != 401 || got != `{"code":101,"message":"unauthorized"}` {
		t.Errorf("%d %s", status, got)
	}
}

func TestOnlyHoldersOfAKeyAreLetIn(t *testing.T) {
	t.Parallel()
	n := alone(t)
	dashed := strings.ReplaceAll(key, " ", "-")
	for _, c := range []struct {
		name    string
		headers []string
		path    string
		status  int
	}{
		{"X-API-Key", nil, "", 200},
		{"the older key", []string{"X-API-Key", strings.ReplaceAll(older, " ", "-")}, "", 200},
		{"Authorization", []string{"X-API-Key", "", "Authorization", "apikey " + dashed}, "", 200},
		{"Authorization, in capitals", []string{"X-API-Key", "", "Authorization", "ApiKey " + dashed}, "", 200},
		{"none", []string{"X-API-Key", ""}, "", 401},
		{"another", []string{"X-API-Key", dashed + "x"}, "", 401},
		{"a part", []string{"X-API-Key", dashed[:len(dashed)-1]}, "", 401},
		{"both together", []string{"X-API-Key", dashed + "," + strings.ReplaceAll(older, " ", "-")}, "", 401},
		{"a bearer", []string{"X-API-Key", "", "Authorization", "Bearer " + dashed}, "", 401},
		{"in the address", []string{"X-API-Key", ""}, "?api_key=" + dashed, 401},
	} {
		if status, body := n.post("/api/info"+c.path, "{}", c.headers...); status != c.status {
			t.Errorf("%s: %d %s", c.name, status, body)
		}
		if status, _ := n.post("/api"+c.path, `{"method":"info"}`, c.headers...); status != c.status {
			t.Errorf("lines, %s: %d", c.name, status)
		}
	}
}

func TestKeys(t *testing.T) {
	least := strings.Repeat("k", MinKeyBytes)
	many := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, least+fmt.Sprint(i))
		}
		return strings.Join(all, ",")
	}
	for _, c := range []struct{ list, wrong string }{
		{least, ""}, {many(MaxKeys), ""}, {" " + least + " ,\n" + least + "2\r\n", ""},
		{least[1:], "key 1 of the server API has 31 bytes, at least 32 are needed"},
		{least + "," + least[1:], "key 2 of the server API has 31 bytes, at least 32 are needed"},
		{many(MaxKeys + 1), "9 keys of the server API, at most 8"},
		{"", "no key of the server API"}, {" , ", "no key of the server API"},
		{least + " x", "key 1 of the server API has a byte that a header may not have"},
	} {
		if _, err := ParseKeys(c.list); fmt.Sprint(err) != c.wrong && (err != nil || c.wrong != "") {
			t.Errorf("%q: %v, want %s", c.list, err, c.wrong)
		}
	}
}

func TestKeysRotateWithTheirFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, second := strings.Repeat("1", MinKeyBytes), strings.Repeat("2", MinKeyBytes)
	if _, err := OpenKeys(path, nil); err == nil {
		t.Error("a file that is not there is taken")
	}
	write(first)
	var complaints []error
	k, err := OpenKeys(path, func(err error) { complaints = append(complaints, err) })
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k.now = func() time.Time { return now }
	accepts := func(wantFirst, wantSecond bool) {
		t.Helper()
		if k.Accept(first) != wantFirst || k.Accept(second) != wantSecond {
			t.Errorf("the first is accepted: %v, the second: %v", k.Accept(first), k.Accept(second))
		}
	}
	accepts(true, false)
	write(second + "\n" + first + "\n")
	accepts(true, false) // not looked at yet
	now = now.Add(KeysReread)
	accepts(true, true)
	write("short")
	now = now.Add(KeysReread)
	accepts(true, true) // what was read before stays
	if len(complaints) != 1 || strings.Contains(complaints[0].Error(), "short,") {
		t.Errorf("complaints %v", complaints)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	now = now.Add(KeysReread)
	accepts(true, true)
	write(second)
	now = now.Add(KeysReread)
	accepts(false, true)
}

// Each limit is kept exactly: what is at it works, one more is refused.
func TestLimits(t *testing.T) {
	t.Parallel()
	n := alone(t)
	ann := n.connect(token.Claims{User: "ann"})
	repeat := func(count int, s string) string { return strings.TrimSuffix(strings.Repeat(s+",", count), ",") }
	text := func(bytes int) string { return `"` + strings.Repeat("<", bytes-2) + `"` }
	order := func(bytes int) string { // an order of so many bytes
		const around = `{"user":"ann","data":}`
		return text(bytes - len(around) - 1) // the encoder ends it with a line break
	}
	type scene struct {
		name, method string
		at, past     string
		code         int
	}
	for _, c := range []scene{
		{"data", "publish", `{"channel":"open:a","data":` + text(limit.DataBytes) + `}`, `{"channel":"open:a","data":` + text(limit.DataBytes+1) + `}`, 106},
		{"data of the namespace", "publish", `{"channel":"plain:a","data":` + text(1000) + `}`, `{"channel":"plain:a","data":` + text(1001) + `}`, 106},
		{"stamped data", "publish", `{"channel":"room:a","data":1}`, `{"channel":"room:a","data":` + text(limit.DataBytes) + `}`, 106},
		{"tags", "publish", `{"channel":"open:a","data":1,"tags":{"k":"` + strings.Repeat("v", limit.TagsBytes-1) + `"}}`,
			`{"channel":"open:a","data":1,"tags":{"k":"` + strings.Repeat("v", limit.TagsBytes) + `"}}`, 106},
		{"idempotency_key", "publish", `{"channel":"open:a","data":1,"idempotency_key":"` + strings.Repeat("i", limit.PublicationIDBytes) + `"}`,
			`{"channel":"open:a","data":1,"idempotency_key":"` + strings.Repeat("i", limit.PublicationIDBytes+1) + `"}`, 106},
		{"key", "publish", `{"channel":"open:a","data":1,"version":1,"key":"` + strings.Repeat("i", limit.PublicationIDBytes) + `"}`,
			`{"channel":"open:a","data":1,"version":1,"key":"` + strings.Repeat("i", limit.PublicationIDBytes+1) + `"}`, 106},
		{"version_epoch", "publish", `{"channel":"open:a","data":1,"version":1,"version_epoch":"` + strings.Repeat("i", limit.PublicationIDBytes-versionKeyExtra) + `"}`,
			`{"channel":"open:a","data":1,"version":1,"version_epoch":"` + strings.Repeat("i", limit.PublicationIDBytes-versionKeyExtra+1) + `"}`, 106},
		{"channel", "publish", `{"channel":"open:` + strings.Repeat("a", limit.ChannelBytes-5) + `","data":1}`,
			`{"channel":"open:` + strings.Repeat("a", limit.ChannelBytes-4) + `","data":1}`, 107},
		{"channels of a broadcast", "broadcast", `{"data":1,"channels":[` + repeat(BroadcastChannels, `"open:a"`) + `]}`,
			`{"data":1,"channels":[` + repeat(BroadcastChannels+1, `"open:a"`) + `]}`, 106},
		{"commands of a batch", "batch", `{"commands":[` + repeat(BatchCommands, `{"presence_stats":{"channel":"open:a"}}`) + `],"parallel":true}`,
			`{"commands":[` + repeat(BatchCommands+1, `{"info":{}}`) + `]}`, 106},
		{"info", "subscribe", `{"user":"ann","channel":"open:a","info":` + text(InfoBytes) + `}`, `{"user":"ann","channel":"open:b","info":` + text(InfoBytes+1) + `}`, 106},
		{"an order", "send", `{"user":"ann","data":` + order(limit.OrderBytes) + `}`, `{"user":"ann","data":` + order(limit.OrderBytes+1) + `}`, 106},
		{"whitelist", "disconnect", `{"user":"nobody","whitelist":[` + repeat(WhitelistClients, `"c"`) + `]}`, `{"user":"nobody","whitelist":[` + repeat(WhitelistClients+1, `"c"`) + `]}`, 106},
		{"a whitelisted id", "disconnect", `{"user":"nobody","whitelist":[` + text(130) + `]}`, `{"user":"nobody","whitelist":[` + text(131) + `]}`, 107},
		{"reason", "disconnect", `{"user":"nobody","disconnect":{"code":4999,"reason":` + text(125) + `}}`, `{"user":"nobody","disconnect":{"code":4999,"reason":` + text(126) + `}}`, 107},
		{"codes of disconnect", "disconnect", `{"user":"nobody","disconnect":{"code":3000,"reason":"x"}}`, `{"user":"nobody","disconnect":{"code":2999,"reason":"x"}}`, 107},
		{"codes of unsubscribe", "unsubscribe", `{"user":"nobody","channel":"open:a","unsubscribe":{"code":2999,"reason":"x"}}`,
			`{"user":"nobody","channel":"open:a","unsubscribe":{"code":3000,"reason":"x"}}`, 107},
		{"pattern", "channels", `{"pattern":"` + strings.Repeat("*", limit.ChannelBytes) + `"}`, `{"pattern":"` + strings.Repeat("*", limit.ChannelBytes+1) + `"}`, 107},
		{"expire_at", "refresh", fmt.Sprintf(`{"user":"nobody","expire_at":%d}`, time.Now().Add(conn.UntilMost-time.Minute).Unix()),
			fmt.Sprintf(`{"user":"nobody","expire_at":%d}`, time.Now().Add(conn.UntilMost+time.Minute).Unix()), 107},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.t = t
			if status, got := n.post("/api/"+c.method, c.at); status != 200 || strings.HasPrefix(got, `{"error"`) {
				t.Errorf("at the limit: %d %.200s", status, got)
			}
			n.call(c.method, c.past, fmt.Sprintf(`{"error":{"code":%d}}`, c.code))
		})
	}
	n.t = t
	if got := ann.want(`{"push":{"channel":"open:a","subscribe":{}}}`); got == nil {
		t.Error("no subscription")
	}
	ann.want(`{"push":{"message":{"data":` + order(limit.OrderBytes) + `}}}`)
	// A page.
	n.call("broadcast", `{"data":1,"channels":[`+repeat(200, `"open:p"`)+`]}`, `{"result":{}}`)
	// The body, and lines.
	body := func(bytes int) string {
		const around = `{"channel":"open:a","data":1}`
		return `{"channel":"open:a","data":1` + strings.Repeat(" ", bytes-len(around)) + `}`
	}
	n.call("publish", body(BodyBytes), `{"result":{}}`)
	if status, got := n.post("/api/publish", body(BodyBytes+1)); status != http.StatusRequestEntityTooLarge || got != `{"error":{"code":106,"message":"limit exceeded: body: at most 4194304 bytes"}}` {
		t.Errorf("one byte more: %d %s", status, got)
	}
	line := `{"method":"nothing"}` + "\n" // as many others could take longer than a request may
	if _, got := n.post("/api", strings.Repeat(line, BatchCommands)); strings.Count(got, `{"error":{"code":104,`) != BatchCommands {
		t.Errorf("%d lines: %.200s", BatchCommands, got)
	}
	if _, got := n.post("/api", strings.Repeat(line, BatchCommands+1)); got != `{"error":{"code":106,"message":"limit exceeded: more than 1000 commands"}}` {
		t.Errorf("one line more: %.200s", got)
	}
}

// A request whose body doesn't come is given up, and meanwhile takes one place of RequestsAtOnce; without a place others are told.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	n := alone(t)
	n.api.bodyTimeout = 15 * time.Second
	address := strings.TrimPrefix(n.url, "http://")
	var waiting sync.WaitGroup
	start := time.Now()
	for range RequestsAtOnce {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: 30\r\n\r\n{", strings.ReplaceAll(key, " ", "-"))
		waiting.Go(func() {
			answer := make([]byte, 4096)
			c.SetReadDeadline(start.Add(60 * time.Second))
			m, err := c.Read(answer)
			if got := string(answer[:m]); err != nil || !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, `"message":"bad request: body: not complete after 15s"`) {
				t.Errorf("answered %q, %v", got, err)
			}
		})
	}
	eventually(t, "all places are taken", func() bool { return len(n.api.places) == RequestsAtOnce })
	n.call("info", `{}`, `{"error":{"code":111,"message":"too many requests"}}`)
	if took := time.Since(start); took < limit.CommandBudget {
		t.Errorf("told after %v", took)
	}
	waiting.Wait()
	if took := time.Since(start); took < n.api.bodyTimeout {
		t.Errorf("given up after %v", took)
	}
	n.call("info", `{}`, `{"result":{}}`)
}

func TestBatches(t *testing.T) {
	t.Parallel()
	n := alone(t)
	n.connect(token.Claims{User: "ann"}).subscribe("open:a")
	for _, parallel := range []string{"", `,"parallel":true`} {
		n.call("batch", `{"commands":[{"publish":{"channel":"open:a","data":1}},{"publish":{"channel":"x:a","data":1}},{"nothing":{}},{"batch":{"commands":[]}},{},
			{"presence_stats":{"channel":"open:a"}},{"history":{"channel":7}}]`+parallel+`}`, `{"replies":[{"publish":{"offset":"…"}},{"error":{"code":102}},
			{"error":{"code":104,"message":"not found: no such method"}},{"error":{"code":107,"message":"bad request: a batch in a batch"}},{"error":{"code":107}},
			{"presence_stats":{"num_clients":1,"num_users":1}},{"error":{"code":107,"message":"bad request: channel: a JSON number is not taken there"}}]}`)
	}
	status, got := n.post("/api", `{"method":"publish","params":{"channel":"open:a","data":1}}`+"\n"+`{"method":"info","params":null}`+`{"method":"x"}`, "Content-Type", "application/json")
	lines := strings.Split(got, "\n")
	if status != 200 || len(lines) != 3 {
		t.Fatalf("%d %s", status, got)
	}
	want(t, lines[0], `{"result":{"offset":3}}`)
	want(t, lines[1], `{"result":{"nodes":[{"name":"n1"}]}}`)
	want(t, lines[2], `{"error":{"code":104}}`)
	for body, answer := range map[string]string{
		"":                         `{"error":{"code":107,"message":"bad request: no command"}}`,
		`{"method":"info"}{`:       `{"error":{"code":107,"message":"bad request: the JSON has no end"}}`,
		`{"method":"info","x":1}`:  `{"error":{"code":107,"message":"bad request: unknown field \"x\""}}`,
		`{"method":"publish"} [1]`: `{"error":{"code":107,"message":"bad request: not understood"}}`,
	} {
		if status, got := n.post("/api", body); status != 200 || got != answer {
			t.Errorf("%s: %d %s", body, status, got)
		}
	}
}
