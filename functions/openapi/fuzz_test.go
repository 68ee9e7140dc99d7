package openapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tideline/functions/openapi"
	"tideline/functions/session"
	sessionbolt "tideline/functions/session/bolt"
	"tideline/functions/tasks"
	"tideline/functions/tasks/dirfiles"
	"tideline/functions/todos"
	"tideline/shared/bus"
	"tideline/shared/todo/bolt"
	"tideline/shared/token"
)

type nobody struct{}

func (nobody) Publish(context.Context, bus.Publication) (bus.Result, error) { return bus.Result{}, nil }

// whole is every function behind one handler, over one bbolt file, and what a signed-in caller needs.
type whole struct {
	http.Handler
	bearer, cookie string
}

func newWhole(t *testing.T) *whole {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secrets, err := token.NewSecrets([]string{strings.Repeat("s", 32)}, nil)
	must(err)
	links, err := sessionbolt.New(db, nil)
	must(err)
	sessions, err := session.New(session.Options{Sessions: secrets.For(token.AudienceSession), Access: secrets, Store: links, Guests: true, PublicScheme: "http"})
	must(err)
	store, err := bolt.New(db, nil)
	must(err)
	files, err := dirfiles.New(t.TempDir(), []byte(strings.Repeat("f", 32)), nil)
	must(err)
	list, err := todos.New(todos.Options{Store: store, Publisher: nobody{}, Verifier: secrets})
	must(err)
	work, err := tasks.New(tasks.Options{Store: store, Files: files, Publisher: nobody{}, Verifier: secrets})
	must(err)
	mux := http.NewServeMux()
	mux.Handle("/api/session", sessions)
	mux.Handle("/api/session/", sessions)
	mux.Handle("/api/tasks", work)
	mux.Handle("/api/tasks/", work)
	mux.Handle("/", list)
	w := &whole{Handler: mux}
	w.signIn(t)
	return w
}

func (w *whole) signIn(t *testing.T) {
	t.Helper()
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, httptest.NewRequest("POST", "/api/session", nil))
	var s struct{ Token string }
	if err := json.Unmarshal(rec.Body.Bytes(), &s); err != nil || s.Token == "" {
		t.Fatalf("sign in: %d %s", rec.Code, rec.Body)
	}
	w.bearer, w.cookie = s.Token, rec.Result().Cookies()[0].String()
}

// generator makes inputs from the document's schemas: mostly near what they ask for, sometimes far from it.
type generator struct {
	r       *rand.Rand
	schemas map[string]map[string]any
	ids     []string // of things that exist
}

var nasty = []any{nil, true, false, 0, -1, 1.5, 1e308, "", " ", "\x00", "a\u0000b", "\u2028", "🌊", strings.Repeat("x", 501), strings.Repeat("🌊", 4001),
	"2030-01-02T03:04:05Z", "9999-12-31T23:59:59.999999999Z", "0000-01-01T00:00:00Z", "-1", "1e999", "null", "../../etc/passwd", "%00", "{}", `"`, "' OR 1=1 --",
	[]any{}, map[string]any{}, []any{nil}, map[string]any{"a": map[string]any{"b": []any{1, "2", nil}}}}

func (g *generator) one(of []any) any { return of[g.r.IntN(len(of))] }

func (g *generator) odds(n int) bool { return g.r.IntN(n) == 0 }

// value makes a value for a schema.
func (g *generator) value(s map[string]any, depth int) any {
	if g.odds(12) || depth > 6 {
		return g.one(nasty)
	}
	if ref, ok := s["$ref"].(string); ok {
		return g.value(g.schemas[ref[strings.LastIndex(ref, "/")+1:]], depth+1)
	}
	if enum, ok := s["enum"].([]any); ok {
		return g.one(enum)
	}
	kind, _ := s["type"].(string)
	if many, ok := s["type"].([]any); ok {
		kind, _ = g.one(many).(string)
	}
	switch kind {
	case "object":
		out := map[string]any{}
		props, _ := s["properties"].(map[string]any)
		required, _ := s["required"].([]any)
		for _, name := range slices.Sorted(maps.Keys(props)) {
			if slices.Contains(required, any(name)) && !g.odds(20) || g.odds(2) {
				out[name] = g.value(props[name].(map[string]any), depth+1)
			}
		}
		if g.odds(20) {
			out[g.text(s)] = g.one(nasty)
		}
		return out
	case "array":
		items, _ := s["items"].(map[string]any)
		out := []any{}
		for range g.r.IntN(3) {
			out = append(out, g.value(items, depth+1))
		}
		return out
	case "integer":
		return g.one([]any{0, 1, 2, 50, 500, 501, -1, 20971520, 20971521, 1 << 53})
	case "number":
		return g.r.NormFloat64()
	case "boolean":
		return g.odds(2)
	case "null":
		return nil
	}
	return g.text(s)
}

func (g *generator) text(s map[string]any) string {
	switch s["format"] {
	case "date-time":
		return time.Unix(g.r.Int64N(1<<33), g.r.Int64N(1e9)).UTC().Format(time.RFC3339Nano)
	case "uuid":
		return g.id()
	}
	n := 1 + g.r.IntN(30)
	if limit, ok := s["maxLength"].(float64); ok && g.odds(4) {
		n = int(limit) - 1 + g.r.IntN(3)
	}
	runes := []rune("abc xyz,;\"'\\\n\t/?#%&=é🌊<>{}[]")
	var b strings.Builder
	for range n {
		b.WriteRune(runes[g.r.IntN(len(runes))])
	}
	return b.String()
}

func (g *generator) id() string {
	if len(g.ids) > 0 && !g.odds(4) {
		return g.ids[g.r.IntN(len(g.ids))]
	}
	var b [16]byte
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// body spells a value as JSON, and now and then breaks it.
func (g *generator) body(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	switch g.r.IntN(16) {
	case 0:
		return b[:g.r.IntN(len(b)+1)]
	case 1:
		b = bytes.Clone(b)
		b[g.r.IntN(len(b))] = byte(g.r.Uint32())
	case 2:
		return append(append([]byte(`{"title":"twice",`), bytes.TrimPrefix(b, []byte("{"))...), b...)
	case 3:
		return []byte(strings.Repeat("[", 1+g.r.IntN(10000)))
	}
	return b
}

type parameter struct {
	Name, In string
	Required bool
	Schema   map[string]any
}

type fuzzOperation struct {
	Parameters  []parameter
	RequestBody struct {
		Content map[string]struct{ Schema map[string]any }
	}
	Responses map[string]any
}

// request makes one call of an operation.
func (g *generator) request(w *whole, method, path string, op fuzzOperation) *http.Request {
	query, header := url.Values{}, http.Header{}
	for _, p := range op.Parameters {
		if !p.Required && g.odds(2) {
			continue
		}
		v := fmt.Sprint(g.value(p.Schema, 0))
		switch p.In {
		case "path":
			if !g.odds(5) {
				v = g.id()
			}
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(v))
		case "query":
			query.Add(p.Name, v)
		case "header":
			v = strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7f { // net/http refuses to send or receive it
					return -1
				}
				return r
			}, v)
			if strings.HasPrefix(p.Name, "If-") && g.odds(2) {
				v = g.one([]any{`"1"`, `"2"`, "*", `W/"1"`, `"1", "2"`, `"`, `""`, ","}).(string)
			}
			header.Set(p.Name, v)
		}
	}
	var body []byte
	contentType := "application/json"
	for _, kind := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
		contentType, body = kind, g.body(g.value(op.RequestBody.Content[kind].Schema, 0))
	}
	if g.odds(30) {
		contentType = g.one([]any{"", "text/plain", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=utf-16", ";;;"}).(string)
	}
	if g.odds(30) {
		query.Add(g.text(map[string]any{}), "x")
	}
	target := path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	r := httptest.NewRequest(method, "http://localhost/", bytes.NewReader(body))
	if u, err := url.ParseRequestURI(target); err == nil {
		r.URL = u
	}
	maps.Copy(r.Header, header)
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Authorization", "Bearer "+w.bearer)
	r.Header.Set("Cookie", w.cookie)
	switch g.r.IntN(40) {
	case 0:
		r.Header.Set("Authorization", g.text(map[string]any{}))
	case 1:
		r.Header.Set("Cookie", "tideline_session="+url.QueryEscape(g.text(map[string]any{})))
	case 2:
		r.Header.Set("X-Request-Id", g.text(map[string]any{}))
	}
	return r
}

// TestNoInputMakesAServerError calls every operation with inputs made from the document: the same ones each time.
func TestNoInputMakesAServerError(t *testing.T) {
	w := newWhole(t)
	var doc struct {
		Paths      map[string]map[string]fuzzOperation
		Components struct{ Schemas map[string]map[string]any }
	}
	if err := json.Unmarshal(openapi.Document(), &doc); err != nil {
		t.Fatal(err)
	}
	g := &generator{r: rand.New(rand.NewPCG(1, 2)), schemas: doc.Components.Schemas}
	statuses, reached := map[int]int{}, map[string]bool{}
	const rounds = 500
	for range rounds {
		for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
			for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
				op := doc.Paths[path][method]
				if path == "/api/session" && method == "delete" && !g.odds(30) { // it ends what the user's ids are good for
					continue
				}
				r := g.request(w, strings.ToUpper(method), path, op)
				rec := httptest.NewRecorder()
				w.ServeHTTP(rec, r)
				statuses[rec.Code]++
				name := method + " " + path
				if rec.Code < 300 {
					reached[name] = true
				}
				g.check(t, r, rec)
				// A path that a parameter has bent is no call of the operation.
				if _, known := op.Responses[fmt.Sprint(rec.Code)]; !known && rec.Code != 404 && rec.Code != 405 {
					t.Errorf("%s %s: %d is not in the document", r.Method, path, rec.Code)
				}
				if path == "/api/session" && method == "delete" && rec.Code < 300 {
					w.signIn(t)
				}
			}
		}
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			if name := method + " " + path; !reached[name] && !strings.Contains(path, "{code}") {
				t.Errorf("%s never succeeded: the inputs are too wild to test it", name)
			}
		}
	}
	t.Logf("answers by status: %v", statuses)
}

// check holds an answer to what every answer must be, and learns ids from it.
func (g *generator) check(t *testing.T, r *http.Request, rec *httptest.ResponseRecorder) {
	t.Helper()
	raw := rec.Body.Bytes()
	if rec.Code >= 500 {
		t.Errorf("%s %s: %d %s", r.Method, r.URL, rec.Code, raw)
		return
	}
	if rec.Code >= 400 {
		var p struct{ Type, Title, Instance string }
		if err := json.Unmarshal(raw, &p); (err != nil || !strings.HasPrefix(p.Type, "urn:tideline:problem:") || p.Instance == "") && !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/html") {
			t.Errorf("%s %s: %d is not a problem of ours: %.300s", r.Method, r.URL, rec.Code, raw)
		}
		if len(raw) > 32<<10 {
			t.Errorf("%s %s: a problem of %d bytes", r.Method, r.URL, len(raw))
		}
		return
	}
	var made struct{ ID string }
	if json.Unmarshal(raw, &made) == nil && made.ID != "" && rec.Code < 300 {
		if g.ids = append(g.ids, made.ID); len(g.ids) > 20 {
			g.ids = g.ids[1:]
		}
	}
}
