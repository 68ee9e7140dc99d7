package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/test/fleet"
)

// sign makes a token as functions/session does.
func sign(t *testing.T, c token.Claims) string {
	t.Helper()
	s, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func user(t *testing.T, name string) string {
	t.Helper()
	return sign(t, token.Claims{User: name, Expires: time.Now().Add(time.Hour)})
}

// raw is a socket without an SDK.
type raw struct {
	t  *testing.T
	ws *websocket.Conn
}

func dial(t *testing.T, f *fleet.Fleet, header http.Header) (*raw, *http.Response, error) {
	ws, res, err := websocket.DefaultDialer.Dial(strings.Replace(f.URL, "http", "ws", 1)+"/connection/websocket", header)
	if err != nil {
		return nil, res, err
	}
	t.Cleanup(func() { ws.Close() })
	if res.Header.Get("X-Tideline-Node") == "" {
		t.Error("the upgrade doesn't name the node")
	}
	return &raw{t, ws}, res, nil
}

func mustDial(t *testing.T, f *fleet.Fleet) *raw {
	t.Helper()
	r, _, err := dial(t, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *raw) send(frame string) {
	r.t.Helper()
	// The other side may close while a large frame is being written: reading tells how.
	if err := r.ws.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil && len(frame) < limit.MessageBytes {
		r.t.Fatal(err)
	}
}

// outcome reads until there is an error reply, or a close frame, and names it: "error 103", "close 3501". Anything else is passed over.
func (r *raw) outcome() string {
	r.t.Helper()
	r.ws.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		_, frame, err := r.ws.ReadMessage()
		if closed := (*websocket.CloseError)(nil); errors.As(err, &closed) {
			// 1009 is the WebSocket protocol's own and needs none.
			if closed.Text == "" && closed.Code >= 3000 || json.Valid([]byte(closed.Text)) {
				r.t.Errorf("close reason %q: SDKs would reconnect on it", closed.Text)
			}
			return fmt.Sprint("close ", closed.Code)
		}
		if err != nil {
			return err.Error()
		}
		for line := range strings.Lines(string(frame)) {
			var reply struct {
				Error struct {
					Code    int
					Message string
				}
			}
			if err := json.Unmarshal([]byte(line), &reply); err != nil {
				r.t.Fatalf("%q: %v", line, err)
			}
			if reply.Error.Code != 0 {
				if reply.Error.Message == "" {
					r.t.Errorf("%s has no message", line)
				}
				return fmt.Sprint("error ", reply.Error.Code)
			}
		}
	}
}

func connectCommand(token string) string {
	return fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`+"\n", token)
}

func TestBadFramesGetTheirCodesAndHurtNobodyElse(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Nodes: 1})
	bystander, _ := guest(t, "bystander", f.URL)
	bystander.subscribe(lobby)
	mark := bystander.Lines()

	const mine = "ann"
	good := connectCommand(user(t, mine))
	expired := sign(t, token.Claims{User: mine, Expires: time.Now().Add(-time.Minute)})
	session := func() string {
		s, _ := token.NewSecrets([]string{fleet.Secret}, nil)
		raw, err := s.For(token.AudienceSession).Sign(token.Claims{User: mine, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}()
	deep := strings.Repeat(`{"connect":`, 2000) + "{}" + strings.Repeat("}", 2000)
	sub := func(channel string) string { return fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, channel) }
	for _, c := range []struct{ name, frame, want string }{
		{"garbage", "not json", "close 3501"},
		{"half a frame", `{"id":1,"connect":{`, "close 3501"},
		{"an array", `[1,2,3]`, "close 3501"},
		{"deeply nested", deep, "close 3501"},
		{"invalid UTF-8", "{\"id\":1,\"connect\":{\"token\":\"\xff\xfe\"}}", "close 1007"},
		{"a command before connect", sub(lobby), "close 3501"},
		{"a command without an id", good + `{"subscribe":{"channel":"chat:lobby"}}`, "close 3501"},
		{"an unknown command", good + `{"id":2,"explode":{}}`, "close 3501"},
		{"connecting twice", good + connectCommand(user(t, mine)), "close 3501"},
		{"send", good + `{"send":{"data":{}}}`, "close 3508"},
		{"a message past the limit", good + `{"id":2,"rpc":{"method":"time","data":"` + strings.Repeat("x", limit.MessageBytes) + `"}}`, "close 1009"},

		{"no signature", connectCommand("nonsense"), "close 3500"},
		{"alg none", connectCommand("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJpc3MiOiJ0aWRlbGluZSIsImF1ZCI6InRpZGVsaW5lIn0."), "close 3500"},
		{"another's signature", connectCommand(user(t, mine)[:40] + "A" + user(t, mine)[41:]), "close 3500"},
		{"a session cookie as a token", connectCommand(session), "close 3500"},
		{"an expired token", connectCommand(expired), "error 109"},

		{"another user's todos", good + sub("todos:#bob"), "error 103"},
		{"another user's personal chat", good + sub("chat:x#bob"), "error 103"},
		{"a container's logs, without the role", good + sub("docker:logs"), "error 103"},
		{"an unknown namespace", good + sub("nowhere:x"), "error 102"},
		{"an empty channel", good + sub(""), "error 107"},
		{"a channel with braces", good + sub("chat:{x}"), "error 107"},
		{"a channel with a space", good + sub("chat:a b"), "error 107"},
		{"a channel of 256 bytes", good + sub("chat:"+strings.Repeat("x", limit.ChannelBytes-4)), "error 107"},
		{"subscribing twice", good + sub(lobby) + "\n" + strings.Replace(sub(lobby), `"id":2`, `"id":3`, 1), "error 105"},

		{"publishing where only functions may", good + sub("todos:#ann") + "\n" + `{"id":3,"publish":{"channel":"todos:#ann","data":{}}}`, "error 103"},
		{"publishing without having subscribed", good + `{"id":2,"publish":{"channel":"chat:lobby","data":{"text":"x"}}}`, "error 103"},
		{"publishing on system", good + `{"id":2,"publish":{"channel":"system","data":{}}}`, "error 103"},
		{"publishing nothing", good + sub(lobby) + "\n" + `{"id":3,"publish":{"channel":"chat:lobby"}}`, "error 107"},
		{"an unknown rpc", good + `{"id":2,"rpc":{"method":"explode"}}`, "error 104"},
		{"rpc publish of nonsense", good + `{"id":2,"rpc":{"method":"publish","data":[1]}}`, "error 107"},
		{"history of what one is not subscribed to", good + `{"id":2,"history":{"channel":"todos:#bob","limit":10}}`, "error 103"},
		{"presence where there is none", good + sub("todos:#ann") + "\n" + `{"id":3,"presence":{"channel":"todos:#ann"}}`, "error 108"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := mustDial(t, f)
			r.send(c.frame)
			if got := r.outcome(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}

	t.Run("another origin", func(t *testing.T) {
		_, res, err := dial(t, f, http.Header{"Origin": {"https://evil.example"}})
		if err == nil || res == nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("%v %v", res, err)
		}
	})
	t.Run("no upgrade", func(t *testing.T) {
		res, err := fleet.Client(nil).Get(f.URL + "/connection/websocket")
		if err != nil || res.StatusCode != http.StatusBadRequest || res.Header.Get("X-Tideline-Node") == "" {
			t.Errorf("%v %v", res, err)
		}
	})

	if err := bystander.say("still here"); err != nil {
		t.Errorf("a bystander was hurt: %v", err)
	}
	bystander.event(mark, "publication", "still here")
	if bystander.count(lobby, "") != 1 {
		t.Errorf("something of the bad input was published:\n%s", bystander.Output())
	}
	for line := range strings.Lines(f.Nodes[0].Output()) {
		if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, `"level":"WARN"`) && !slowMachine.MatchString(line) {
			t.Errorf("what clients do wrong is no trouble of ours: %s", line)
		}
	}
}

// slowMachine is what a node says of itself when the machine stood still.
var slowMachine = regexp.MustCompile(`"msg":"(canary not heard|lock not|heartbeat failed|counts not exchanged|presence housekeeping failed|bus: )`)

func TestBadRequestsGetProblemDocuments(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run")
	}
	f := fleet.Start(t, fleet.Options{Nodes: 1})
	bystander, _ := guest(t, "bystander", f.URL)
	bystander.subscribe("todos:#" + bystander.user)

	bearer := user(t, bystander.user)
	_, id := bystander.createTodo("the only one")
	bystander.event(0, "publication", id)
	one := "/api/todos/" + id
	post, patch := http.MethodPost, http.MethodPatch
	title := func(n int) string { return fmt.Sprintf(`{"title":%q}`, strings.Repeat("x", n)) }
	for _, c := range []struct {
		name, method, path, token, body string
		status                          int
		problem                         string
	}{
		{"no token", post, "/api/todos", "", title(1), 401, "unauthorized"},
		{"nonsense for a token", post, "/api/todos", "nonsense", title(1), 401, "token-invalid"},
		{"an expired token", post, "/api/todos", sign(t, token.Claims{User: "ann", Expires: time.Now().Add(-time.Minute)}), title(1), 401, "token-expired"},
		{"malformed JSON", post, "/api/todos", bearer, `{"title":`, 400, "invalid-request"},
		{"no JSON at all", post, "/api/todos", bearer, `title=x`, 400, "invalid-request"},
		{"a key twice", post, "/api/todos", bearer, `{"title":"a","title":"b"}`, 400, "invalid-request"},
		{"invalid UTF-8", post, "/api/todos", bearer, "{\"title\":\"\xff\"}", 400, "invalid-request"},
		{"an empty body", post, "/api/todos", bearer, "", 400, "invalid-request"},
		{"no title", post, "/api/todos", bearer, `{}`, 422, "validation-failed"},
		{"an empty title", post, "/api/todos", bearer, `{"title":""}`, 422, "validation-failed"},
		{"a title of 501 characters", post, "/api/todos", bearer, title(501), 422, "validation-failed"},
		{"a title that is a number", post, "/api/todos", bearer, `{"title":1}`, 422, "validation-failed"},
		{"an unknown field", post, "/api/todos", bearer, `{"title":"a","colour":"red"}`, 422, "validation-failed"},
		{"a body past the limit", post, "/api/todos", bearer, title(limit.BodyBytes), 413, "body-too-large"},
		{"an unknown id", http.MethodGet, "/api/todos/0000000000", bearer, "", 404, "not-found"},
		{"patching an unknown id", patch, "/api/todos/0000000000", bearer, `{"done":true}`, 404, "not-found"},
		{"another user's todo", http.MethodGet, one, user(t, "stranger"), "", 404, "not-found"},
		{"deleting another user's todo", http.MethodDelete, one, user(t, "stranger"), "", 404, "not-found"},
		{"an empty title again", patch, one, bearer, `{"title":""}`, 422, "validation-failed"},
		{"an unknown method", "BREW", "/api/todos", bearer, "", 405, "method-not-allowed"},
		{"an unknown path", http.MethodGet, "/api/nothing", bearer, "", 404, "not-found"},
		{"a token without a session", post, "/api/session/token", "", "", 401, "no-session"},
		{"a link that never was", post, "/api/session/link/AAAAAAAAAAAAAAAAAAAAAAAAAA", "", "", 410, "link-expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := request(t, c.method, f.URL+c.path, c.token, c.body)
			var problem struct {
				Type, Title, Detail string
				Status              int
			}
			if err := json.Unmarshal(body, &problem); err != nil || res.StatusCode != c.status || problem.Status != c.status ||
				problem.Type != "urn:tideline:problem:"+c.problem || problem.Title == "" || res.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d %s %s (%v)", res.StatusCode, res.Header.Get("Content-Type"), body, err)
			}
		})
	}

	t.Run("a title of 500 characters is fine", func(t *testing.T) {
		if res, body := request(t, post, f.URL+"/api/todos", user(t, "stranger"), title(500)); res.StatusCode != 201 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})
	t.Run("a used link", func(t *testing.T) {
		var link struct{ Body struct{ URL string } }
		bystander.mustDo(&link, "rest", args{"method": "POST", "path": "/api/session/link"})
		if res, body := request(t, post, link.Body.URL, "", ""); res.StatusCode != http.StatusSeeOther {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
		res, body := request(t, post, link.Body.URL, "", "")
		if res.StatusCode != http.StatusGone || !strings.Contains(string(body), "urn:tideline:problem:link-used") || len(res.Cookies()) != 0 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})

	if n := bystander.count("todos:#"+bystander.user, ""); n != 1 {
		t.Errorf("%d changes were announced, 1 was made", n)
	}
	if log := f.Functions.Output(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("what clients do wrong is no trouble of ours:\n%s", log)
	}
}

func request(t *testing.T, method, url, token, body string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if len(body) > limit.BodyBytes {
		// As curl does. Without it the refusal races with the rest of the body, and the connection may end before it is read.
		r.Header.Set("Expect", "100-continue")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := fleet.Client(nil).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, answer
}
