package todos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tideline/functions/todos"
	"tideline/shared/bus"
	"tideline/shared/todo"
	"tideline/shared/todo/bolt"
	"tideline/shared/todo/storetest"
	"tideline/shared/token"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// recorder is a bus that keeps what is published, or fails, or hangs until its context ends.
type recorder struct {
	mu   sync.Mutex
	pubs []bus.Publication
	fail error
	hang bool
}

func (r *recorder) Publish(ctx context.Context, p bus.Publication) (bus.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hang {
		<-ctx.Done()
		return bus.Result{}, fmt.Errorf("%w: %w", bus.ErrUnavailable, ctx.Err())
	}
	if r.fail != nil {
		return bus.Result{}, r.fail
	}
	r.pubs = append(r.pubs, p)
	return bus.Result{Position: bus.Position{Epoch: "e", Offset: uint64(len(r.pubs))}}, nil
}

func (r *recorder) take() []bus.Publication {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pubs
	r.pubs = nil
	return p
}

const secret = "0123456789abcdef0123456789abcdef"

// site is the API on a real HTTP server over a bbolt store.
type site struct {
	t     *testing.T
	url   string
	bus   *recorder
	store *bolt.Store
	clock *storetest.Clock
	sign  *token.Secrets
}

func newSite(t *testing.T) *site {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &site{t: t, bus: &recorder{}, clock: storetest.NewClock()}
	if s.store, err = bolt.New(db, s.clock.Now); err != nil {
		t.Fatal(err)
	}
	if s.sign, err = token.NewSecrets([]string{secret}, s.clock.Now); err != nil {
		t.Fatal(err)
	}
	h, err := todos.New(todos.Options{Store: s.store, Publisher: s.bus, Verifier: s.sign, Now: s.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s.url = server.URL
	return s
}

func (s *site) token(user string) string {
	s.t.Helper()
	tok, err := s.sign.Sign(token.Claims{User: user, Expires: s.clock.Now().Add(365 * 24 * time.Hour)})
	if err != nil {
		s.t.Fatal(err)
	}
	return tok
}

type reply struct {
	*http.Response
	raw []byte
}

func (r reply) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(r.raw, v); err != nil {
		t.Fatalf("body %q: %v", r.raw, err)
	}
}

func (r reply) todo(t *testing.T) (x todo.Todo) { t.Helper(); r.into(t, &x); return x }

// call sends a request as the user and wants the status. Headers are "Name: value".
func (s *site) call(user, method, path, body string, status int, headers ...string) reply {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if user != "" {
		req.Header.Set("Authorization", "Bearer "+s.token(user))
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if res.StatusCode != status {
		s.t.Fatalf("%s %s %.200s: status %d %s, want %d", method, path, body, res.StatusCode, raw, status)
	}
	if res.StatusCode >= 400 {
		var p struct{ Type, Instance string }
		if err := json.Unmarshal(raw, &p); err != nil || !strings.HasPrefix(p.Type, "urn:tideline:problem:") || p.Instance == "" {
			s.t.Fatalf("%s %s: %d is not a problem document of ours: %s", method, path, status, raw)
		}
	}
	return reply{res, raw}
}

func problemType(t *testing.T, r reply) string {
	t.Helper()
	var p struct{ Type string }
	r.into(t, &p)
	return strings.TrimPrefix(p.Type, "urn:tideline:problem:")
}

func TestCreateReadChangeDelete(t *testing.T) {
	s := newSite(t)
	r := s.call("ann", "POST", "/api/todos", `{"title":"  milk  "}`, 201)
	a := r.todo(t)
	if a.Title != "milk" || a.Done || a.Version != 1 || !a.CreatedAt.Equal(s.clock.Now()) || !todo.ValidID(a.ID) {
		t.Errorf("created %+v", a)
	}
	if r.Header.Get("Location") != "/api/todos/"+a.ID || r.Header.Get("ETag") != `"1"` {
		t.Errorf("Location %q, ETag %q", r.Header.Get("Location"), r.Header.Get("ETag"))
	}
	s.clock.Advance(time.Second)
	b := s.call("ann", "PATCH", "/api/todos/"+a.ID, `{"done":true,"note":"two bottles","dueAt":"2030-01-02T03:04:05+01:00"}`, 200).todo(t)
	if !b.Done || b.Title != "milk" || b.Note != "two bottles" || b.Version != 2 || !b.UpdatedAt.Equal(s.clock.Now()) || !b.CreatedAt.Equal(a.CreatedAt) {
		t.Errorf("patched %+v", b)
	}
	b = s.call("ann", "PATCH", "/api/todos/"+a.ID, `{"note":null,"dueAt":null}`, 200, "Content-Type: application/merge-patch+json").todo(t)
	if b.Note != "" || b.DueAt != nil || !b.Done || b.Version != 3 {
		t.Errorf("patched with null: %+v", b)
	}
	if c := s.call("ann", "GET", "/api/todos/"+a.ID, "", 200).todo(t); c.Version != 3 {
		t.Errorf("read %+v", c)
	}
	s.call("ann", "DELETE", "/api/todos/"+a.ID, "", 204)
	s.call("ann", "GET", "/api/todos/"+a.ID, "", 404)
	s.call("ann", "DELETE", "/api/todos/"+a.ID, "", 404)
	s.call("ann", "PATCH", "/api/todos/"+a.ID, `{"done":false}`, 404)

	var got []string
	for _, p := range s.bus.take() {
		var e todo.Event
		if err := json.Unmarshal(p.Data, &e); err != nil {
			t.Fatal(err)
		}
		if p.Channel != "todos:#ann" || p.ID != todo.PublicationID(a.ID, e.Todo.Version) || p.Key != a.ID || p.Version != e.Todo.Version || p.History.Size == 0 {
			t.Errorf("publication %+v", p)
		}
		got = append(got, fmt.Sprintf("%s %d", e.Type, e.Todo.Version))
	}
	if want := "[todo.created 1 todo.updated 2 todo.updated 3 todo.deleted 4]"; fmt.Sprint(got) != want {
		t.Errorf("published %v, want %s", got, want)
	}
}

func TestChangingNothingWritesAndPublishesNothing(t *testing.T) {
	s := newSite(t)
	a := s.call("ann", "POST", "/api/todos", `{"title":"milk"}`, 201).todo(t)
	s.bus.take()
	for _, body := range []string{`{}`, `{"title":" milk "}`, `{"done":false,"note":null}`} {
		if b := s.call("ann", "PATCH", "/api/todos/"+a.ID, body, 200).todo(t); b.Version != 1 {
			t.Errorf("%s made version %d", body, b.Version)
		}
	}
	if got := s.bus.take(); len(got) != 0 {
		t.Errorf("published %d events", len(got))
	}
}

func TestPutCreatesUnderAnIDOfTheCallersAndRepeatsQuietly(t *testing.T) {
	s := newSite(t)
	const path = "/api/todos/6f1c9d52-5b8e-4a39-9a39-1f9f8f2f1c11"
	s.call("ann", "PUT", path, `{"title":"x"}`, 412, `If-Match: "1"`)
	if a := s.call("ann", "PUT", path, `{"title":"x","done":true}`, 201, "If-None-Match: *").todo(t); a.Version != 1 || !a.Done {
		t.Errorf("created %+v", a)
	}
	s.call("ann", "PUT", path, `{"title":"other"}`, 412, "If-None-Match: *")
	if a := s.call("ann", "PUT", path, `{"title":"x","done":true}`, 200).todo(t); a.Version != 1 {
		t.Errorf("repeated: version %d, want 1", a.Version)
	}
	if a := s.call("ann", "PUT", path, `{"title":"y"}`, 200).todo(t); a.Version != 2 || a.Done {
		t.Errorf("replaced: %+v", a)
	}
	s.call("ann", "DELETE", path, "", 204)
	if a := s.call("ann", "PUT", path, `{"title":"z"}`, 201).todo(t); a.Version != 4 {
		t.Errorf("re-created as version %d, want 4: the tombstone's and one", a.Version)
	}
	for _, id := range []string{"x", "6F1C9D52-5B8E-4A39-9A39-1F9F8F2F1C11", "6f1c9d525b8e4a399a391f9f8f2f1c11", "%7B6f1c9d52-5b8e-4a39-9a39-1f9f8f2f1c11%7D"} {
		s.call("ann", "PUT", "/api/todos/"+id, `{"title":"x"}`, 422)
		s.call("ann", "GET", "/api/todos/"+id, "", 404)
	}
}

func TestIfMatchLosesTheRaceAndSaysWhichVersionWon(t *testing.T) {
	s := newSite(t)
	a := s.call("ann", "POST", "/api/todos", `{"title":"x"}`, 201).todo(t)
	path := "/api/todos/" + a.ID
	s.call("ann", "PATCH", path, `{"title":"first"}`, 200, `If-Match: "1"`)
	r := s.call("ann", "PATCH", path, `{"title":"second"}`, 412, `If-Match: "1"`)
	if problemType(t, r) != "version-mismatch" || r.Header.Get("ETag") != `"2"` {
		t.Errorf("problem %s, ETag %q", r.raw, r.Header.Get("ETag"))
	}
	s.call("ann", "DELETE", path, "", 412, `If-Match: "1"`)
	s.call("ann", "PUT", path, `{"title":"third"}`, 412, `If-Match: "99999999999999999999999"`)
	s.call("ann", "PATCH", path, `{"title":"third"}`, 200, `If-Match: W/"7", "2"`)
	s.call("ann", "PATCH", path, `{"title":"fourth"}`, 200, `If-Match: *`)
	for _, bad := range []string{"3", `"3`, `"3",`, "W/"} {
		s.call("ann", "PATCH", path, `{"title":"x"}`, 400, "If-Match: "+bad)
	}
	s.call("ann", "GET", path, "", 304, `If-None-Match: "4"`)
	s.call("ann", "GET", path, "", 200, `If-None-Match: "3"`)
	s.call("ann", "DELETE", path, "", 204, `If-Match: "4"`)
}

func TestIdempotencyKey(t *testing.T) {
	s := newSite(t)
	key := "Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324"
	a := s.call("ann", "POST", "/api/todos", `{"title":"x","done":false}`, 201, key)
	b := s.call("ann", "POST", "/api/todos", `{ "title": " x " }`, 201, key)
	if !bytes.Equal(a.raw, b.raw) || a.Header.Get("Location") != b.Header.Get("Location") {
		t.Errorf("repeated answer %s, first %s", b.raw, a.raw)
	}
	if n := len(s.bus.take()); n != 1 {
		t.Errorf("published %d times, want once", n)
	}
	if p := problemType(t, s.call("ann", "POST", "/api/todos", `{"title":"y"}`, 422, key)); p != "idempotency-key-reused" {
		t.Errorf("problem %s", p)
	}
	s.call("bob", "POST", "/api/todos", `{"title":"y"}`, 201, key)
	s.clock.Advance(todo.AnswerTTL)
	s.call("ann", "POST", "/api/todos", `{"title":"y"}`, 201, key)
	s.call("ann", "POST", "/api/todos", `{"title":"y"}`, 201, "Idempotency-Key: "+strings.Repeat("k", todos.KeyBytes))
	s.call("ann", "POST", "/api/todos", `{"title":"y"}`, 422, "Idempotency-Key: "+strings.Repeat("k", todos.KeyBytes+1))
	s.call("ann", "POST", "/api/todos", `{"title":"y"}`, 422, "Idempotency-Key: two words")
}

type listBody struct {
	Items []todo.Todo
	Next  string
}

func TestListPages(t *testing.T) {
	s := newSite(t)
	r := s.call("ann", "GET", "/api/todos", "", 200)
	if got := strings.TrimSpace(string(r.raw)); got != `{"items":[]}` {
		t.Errorf("empty list: %s", got)
	}
	for n := range 5 {
		s.clock.Advance(time.Millisecond)
		s.call("ann", "POST", "/api/todos", fmt.Sprintf(`{"title":"t%d","done":%v}`, n, n == 2), 201)
	}
	var got []string
	next := ""
	for {
		var page listBody
		s.call("ann", "GET", "/api/todos?limit=2&done=false&cursor="+next, "", 200).into(t, &page)
		for _, i := range page.Items {
			got = append(got, i.Title)
		}
		if next = page.Next; next == "" {
			break
		}
	}
	if fmt.Sprint(got) != "[t4 t3 t1 t0]" {
		t.Errorf("listed %v", got)
	}
	s.call("ann", "GET", "/api/todos?limit=500", "", 200)
	for _, q := range []string{"limit=0", "limit=501", "limit=x", "done=maybe", "cursor=!!!", "cursor=MS4x", "cursor=" + strings.Repeat("A", 201), "unknown=1"} {
		s.call("ann", "GET", "/api/todos?"+q, "", 422)
	}
}

func TestAPageOfLargeTodosEndsBeforeTheAnswerIsTooLarge(t *testing.T) {
	s := newSite(t)
	note := strings.Repeat("🌊", todo.NoteChars)
	const n = 60 // of 16 KB: more than 700 KB
	for range n {
		s.clock.Advance(time.Millisecond)
		s.call("ann", "POST", "/api/todos", `{"title":"x","note":"`+note+`"}`, 201)
	}
	seen, next := 0, ""
	for pages := 1; ; pages++ {
		var page listBody
		r := s.call("ann", "GET", "/api/todos?limit=500&cursor="+next, "", 200)
		if len(r.raw) > 1<<20*7/10+100 {
			t.Fatalf("an answer of %d bytes", len(r.raw))
		}
		r.into(t, &page)
		seen += len(page.Items)
		if next = page.Next; next == "" {
			if pages < 2 {
				t.Error("one page: the test has too little data")
			}
			break
		}
	}
	if seen != n {
		t.Errorf("%d todos in all pages, want %d", seen, n)
	}
}

func TestClearCompleted(t *testing.T) {
	s := newSite(t)
	for n := range 120 {
		s.clock.Advance(time.Millisecond)
		s.call("ann", "POST", "/api/todos", fmt.Sprintf(`{"title":"t%d","done":%v}`, n, n%10 != 0), 201)
	}
	s.bus.take()
	r := s.call("ann", "POST", "/api/todos/clear-completed", "", 200)
	if got := strings.TrimSpace(string(r.raw)); got != `{"cleared":108,"more":false}` {
		t.Errorf("answer %s", got)
	}
	var page listBody
	s.call("ann", "GET", "/api/todos?limit=500", "", 200).into(t, &page)
	if len(page.Items) != 12 {
		t.Errorf("%d todos left, want 12", len(page.Items))
	}
	// The outbox has an event for each, whatever was announced at once.
	pending, err := s.store.Pending(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	if len(pending) != 120+108 {
		t.Errorf("%d events pending, want %d", len(pending), 120+108)
	}
	if n := len(s.bus.take()); n != 64 {
		t.Errorf("%d published at once, want 64", n)
	}
}

func TestRedisAwayIsStillSuccessWithinTheBudget(t *testing.T) {
	s := newSite(t)
	s.bus.fail = bus.ErrUnavailable
	s.call("ann", "POST", "/api/todos", `{"title":"x"}`, 201)
	s.bus.fail, s.bus.hang = nil, true
	start := time.Now()
	s.call("ann", "POST", "/api/todos", `{"title":"y"}`, 201)
	if took := time.Since(start); took < todos.PublishBudget { // and not for ever
		t.Errorf("answered after %v, the budget is %v", took, todos.PublishBudget)
	}
	pending, err := s.store.Pending(t.Context(), 10)
	if err != nil || len(pending) != 2 {
		t.Errorf("%d events pending (%v), want 2", len(pending), err)
	}
}

func TestAnotherUsersTodoIsNotFound(t *testing.T) {
	s := newSite(t)
	a := s.call("ann", "POST", "/api/todos", `{"title":"x"}`, 201).todo(t)
	s.bus.take()
	path := "/api/todos/" + a.ID
	s.call("bob", "GET", path, "", 404)
	s.call("bob", "PATCH", path, `{"title":"y"}`, 404)
	s.call("bob", "DELETE", path, "", 404)
	if n := len(s.bus.take()); n != 0 {
		t.Errorf("%d publications", n)
	}
}

func TestBadInput(t *testing.T) {
	s := newSite(t)
	a := s.call("ann", "POST", "/api/todos", `{"title":"x"}`, 201).todo(t)
	s.bus.take()
	title := func(n int) string { return `{"title":"` + strings.Repeat("ü", n) + `"}` }
	for _, c := range []struct {
		name, body, problem string
		status              int
	}{
		{"empty title", `{"title":""}`, "validation-failed", 422},
		{"blank title", `{"title":" \n\t "}`, "validation-failed", 422},
		{"one character past the title's limit", title(todo.TitleChars + 1), "validation-failed", 422},
		{"one character past the note's limit", `{"title":"x","note":"` + strings.Repeat("ü", todo.NoteChars+1) + `"}`, "validation-failed", 422},
		{"no title", `{"done":true}`, "validation-failed", 422},
		{"null title", `{"title":null}`, "validation-failed", 422},
		{"a control character in the title", `{"title":"a\u0007b"}`, "validation-failed", 422},
		{"a NUL in the note", `{"title":"a","note":"a\u0000b"}`, "validation-failed", 422},
		{"unknown field", `{"title":"x","owner":"bob"}`, "validation-failed", 422},
		{"a field that is the server's", `{"title":"x","version":7}`, "validation-failed", 422},
		{"wrong type", `{"title":"x","done":"yes"}`, "validation-failed", 422},
		{"huge number", `{"title":1e999}`, "", 0},
		{"bad date", `{"title":"x","dueAt":"tomorrow"}`, "validation-failed", 422},
		{"date of another age", `{"title":"x","dueAt":"0001-01-01T00:00:00Z"}`, "validation-failed", 422},
		{"array", `[]`, "validation-failed", 422},
		{"not JSON", `{"title":`, "invalid-request", 400},
		{"nothing", ``, "invalid-request", 400},
		{"two values", `{"title":"x"}{"title":"y"}`, "invalid-request", 400},
		{"duplicate keys", `{"title":"x","title":"y"}`, "invalid-request", 400},
		{"invalid UTF-8", "{\"title\":\"\xff\"}", "invalid-request", 400},
		{"deep nesting", `{"title":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`, "invalid-request", 400},
		{"one byte past the body's limit", `{"title":"` + strings.Repeat("x", 1<<20-11) + `"}`, "body-too-large", 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, to := range []struct{ method, path string }{{"POST", "/api/todos"}, {"PUT", "/api/todos/" + a.ID}} {
				req, _ := http.NewRequestWithContext(t.Context(), to.method, s.url+to.path, strings.NewReader(c.body))
				req.Header.Set("Authorization", "Bearer "+s.token("ann"))
				req.Header.Set("Content-Type", "application/json")
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				raw, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if c.status == 0 && res.StatusCode >= 400 && res.StatusCode < 500 {
					continue
				}
				if res.StatusCode != c.status {
					t.Fatalf("%s: status %d, want %d: %.300s", to.method, res.StatusCode, c.status, raw)
				}
				if p := problemType(t, reply{res, raw}); p != c.problem {
					t.Errorf("%s: problem %s, want %s: %.300s", to.method, p, c.problem, raw)
				}
			}
		})
	}
	if n := len(s.bus.take()); n != 0 {
		t.Errorf("%d publications of refused requests", n)
	}
	// At the limits all is well.
	s.call("ann", "POST", "/api/todos", title(todo.TitleChars), 201)
	s.call("ann", "POST", "/api/todos", `{"title":"  `+strings.Repeat("🌊", todo.TitleChars)+`  ","note":"`+strings.Repeat("n", todo.NoteChars)+`"}`, 201)
	s.call("ann", "POST", "/api/todos", `title=x`, 415, "Content-Type: application/x-www-form-urlencoded")
	s.call("", "GET", "/api/todos", "", 401)
	s.call("ann", "GET", "/api/todos", "", 401, "Authorization: Bearer x.y.z")
	s.call("ann", "POST", "/api/todos", `{"title":"x"}`, 403, "Sec-Fetch-Site: cross-site")
	s.call("ann", "DELETE", "/api/todos", "", 405)
	s.call("ann", "GET", "/api/todos/a/b", "", 404)
	s.call("user with spaces", "GET", "/api/todos", "", 403)
}
