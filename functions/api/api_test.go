package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
	"tideline/shared/limit"
	"tideline/shared/metric"
	"tideline/shared/token"
)

type noteInput struct {
	Size int `query:"size" minimum:"1" maximum:"9"`
	Body struct {
		Title string         `json:"title" maxLength:"10"`
		Count int64          `json:"count,omitempty"`
		Extra map[string]any `json:"extra,omitempty"`
	}
}

type noteOutput struct {
	Body struct {
		User  string `json:"user"`
		Title string `json:"title"`
	}
}

// verifier answers what the token's name says.
type verifier struct{}

func (verifier) Verify(_ context.Context, raw string) (token.Claims, error) {
	switch raw {
	case "good":
		return token.Claims{User: "ann"}, nil
	case "nobody":
		return token.Claims{}, nil
	case "channel":
		return token.Claims{User: "ann", Channel: "chat:a"}, nil
	case "old":
		return token.Claims{}, token.ErrExpired
	case "away":
		return token.Claims{}, fmt.Errorf("table secret-host: %w", token.ErrUnavailable)
	}
	return token.Claims{}, fmt.Errorf("%w: secret detail", token.ErrInvalid)
}

type meter struct {
	mu sync.Mutex
	n  map[string]float64
}

func (m *meter) Add(name string, n float64, _ ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n[name] += n
}
func (m *meter) Observe(name string, _ float64, _ ...string) { m.Add(name, 1) }

// fixture is an API with one operation that needs a token, one that fails and one that panics.
func fixture(t *testing.T) (*api.API, *bytes.Buffer, *meter) {
	t.Helper()
	var log bytes.Buffer
	m := &meter{n: map[string]float64{}}
	a, err := api.New(api.Options{Verifier: verifier{}, TrustedOrigins: []string{"https://trusted.example"}, Meter: m,
		Log: slog.New(api.LogHandler(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))})
	if err != nil {
		t.Fatal(err)
	}
	api.Register(a, huma.Operation{OperationID: "note", Method: http.MethodPost, Path: "/api/notes", Security: api.Bearer},
		func(ctx context.Context, in *noteInput) (*noteOutput, error) {
			out := &noteOutput{}
			out.Body.User, out.Body.Title = api.Caller(ctx).User, in.Body.Title
			return out, nil
		})
	api.Register(a, huma.Operation{OperationID: "fail", Method: http.MethodGet, Path: "/api/fail"},
		func(context.Context, *struct{}) (*noteOutput, error) {
			return nil, errors.New("table secret-host is on fire")
		})
	api.Register(a, huma.Operation{OperationID: "panic", Method: http.MethodGet, Path: "/api/panic"},
		func(context.Context, *struct{}) (*noteOutput, error) { panic("secret-host") })
	return a, &log, m
}

type problem struct {
	Type, Title, Detail, Instance string
	Status                        int
	Errors                        []huma.ErrorDetail
}

func send(t *testing.T, h http.Handler, method, path, body string, header ...string) (*httptest.ResponseRecorder, problem) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer good")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var p problem
	if w.Code >= 400 {
		if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
			t.Fatalf("%s %s: %d as %q: %s", method, path, w.Code, ct, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if p.Status != w.Code || p.Title == "" || p.Instance != "urn:tideline:request:"+w.Header().Get("X-Request-Id") {
			t.Errorf("%s %s: %d %+v", method, path, w.Code, p)
		}
		if w.Header().Get("X-Tideline-Problem") != strings.TrimPrefix(p.Type, api.TypePrefix) {
			t.Errorf("%s %s: header %q, type %q", method, path, w.Header().Get("X-Tideline-Problem"), p.Type)
		}
	}
	if strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%s %s shows what is ours: %s", method, path, w.Body)
	}
	return w, p
}

func nested(depth int) string {
	return `{"title":"a","extra":{"a":` + strings.Repeat("[", depth-2) + strings.Repeat("]", depth-2) + `}}`
}

// pad makes a body of exactly n bytes.
func pad(n int) string {
	const start = `{"title":"a"`
	return start + strings.Repeat(" ", n-len(start)-1) + "}"
}

func TestRefusals(t *testing.T) {
	a, _, _ := fixture(t)
	const ok = `{"title":"a"}`
	for name, tc := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		code               api.Code
	}{
		"good":                     {"POST", "/api/notes", ok, nil, 200, ""},
		"good, charset":            {"POST", "/api/notes", ok, []string{"Content-Type", "application/json; charset=utf-8"}, 200, ""},
		"no such path":             {"GET", "/api/nothing", "", nil, 404, api.CodeNotFound},
		"no such path, encoded":    {"GET", "/api/%00%ff", "", nil, 404, api.CodeNotFound},
		"method not allowed":       {"PUT", "/api/notes", ok, nil, 405, api.CodeMethodNotAllowed},
		"strange method":           {"BREW", "/api/notes", "", nil, 405, api.CodeMethodNotAllowed},
		"no body":                  {"POST", "/api/notes", "", nil, 400, api.CodeInvalidRequest},
		"not JSON":                 {"POST", "/api/notes", "title=a", nil, 400, api.CodeInvalidRequest},
		"half a value":             {"POST", "/api/notes", `{"title":"a"`, nil, 400, api.CodeInvalidRequest},
		"two values":               {"POST", "/api/notes", ok + ok, nil, 400, api.CodeInvalidRequest},
		"duplicate key":            {"POST", "/api/notes", `{"title":"a","title":"b"}`, nil, 400, api.CodeInvalidRequest},
		"duplicate key, escaped":   {"POST", "/api/notes", `{"title":"a","titl\u0065":"b"}`, nil, 400, api.CodeInvalidRequest},
		"duplicate key, deep":      {"POST", "/api/notes", `{"title":"a","extra":{"x":[{"a":1,"b":{},"a":2}]}}`, nil, 400, api.CodeInvalidRequest},
		"same key, other objects":  {"POST", "/api/notes", `{"title":"a","extra":{"title":[{"a":1},{"a":1}],"b":{"title":{}}}}`, nil, 200, ""},
		"invalid UTF-8":            {"POST", "/api/notes", "{\"title\":\"\xff\"}", nil, 400, api.CodeInvalidRequest},
		"number past float64":      {"POST", "/api/notes", `{"title":"a","count":1e400}`, nil, 400, api.CodeInvalidRequest},
		"number past int64":        {"POST", "/api/notes", `{"title":"a","count":99999999999999999999}`, nil, 422, api.CodeValidation},
		"fraction for an integer":  {"POST", "/api/notes", `{"title":"a","count":1.5}`, nil, 422, api.CodeValidation},
		"nested at the limit":      {"POST", "/api/notes", nested(api.DepthMax), nil, 200, ""},
		"nested one deeper":        {"POST", "/api/notes", nested(api.DepthMax + 1), nil, 400, api.CodeInvalidRequest},
		"nested very deep":         {"POST", "/api/notes", strings.Repeat("[", 500_000), nil, 400, api.CodeInvalidRequest},
		"unknown field":            {"POST", "/api/notes", `{"title":"a","done":true}`, nil, 422, api.CodeValidation},
		"field in another case":    {"POST", "/api/notes", `{"title":"a","Title":"b"}`, nil, 422, api.CodeValidation},
		"missing field":            {"POST", "/api/notes", `{}`, nil, 422, api.CodeValidation},
		"null":                     {"POST", "/api/notes", `null`, nil, 422, api.CodeValidation},
		"array":                    {"POST", "/api/notes", `[]`, nil, 422, api.CodeValidation},
		"wrong type":               {"POST", "/api/notes", `{"title":1}`, nil, 422, api.CodeValidation},
		"title at the limit":       {"POST", "/api/notes", `{"title":"éééééééééé"}`, nil, 200, ""},
		"title past the limit":     {"POST", "/api/notes", `{"title":"01234567890"}`, nil, 422, api.CodeValidation},
		"unknown query parameter":  {"POST", "/api/notes?x=1", ok, nil, 422, api.CodeValidation},
		"query parameter past max": {"POST", "/api/notes?size=10", ok, nil, 422, api.CodeValidation},
		"query parameter no int":   {"POST", "/api/notes?size=one", ok, nil, 422, api.CodeValidation},
		"content type":             {"POST", "/api/notes", ok, []string{"Content-Type", "text/plain"}, 415, api.CodeMediaType},
		"content type of a form":   {"POST", "/api/notes", ok, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, api.CodeMediaType},
		"content type, malformed":  {"POST", "/api/notes", ok, []string{"Content-Type", ";+"}, 415, api.CodeMediaType},
		"body at the limit":        {"POST", "/api/notes", pad(limit.BodyBytes), nil, 200, ""},
		"body one past the limit":  {"POST", "/api/notes", pad(limit.BodyBytes + 1), nil, 413, api.CodeBodyTooLarge},
		"cross-site":               {"POST", "/api/notes", ok, []string{"Sec-Fetch-Site", "cross-site"}, 403, api.CodeCrossOrigin},
		"same site, other origin":  {"POST", "/api/notes", ok, []string{"Sec-Fetch-Site", "same-site"}, 403, api.CodeCrossOrigin},
		"other Origin":             {"POST", "/api/notes", ok, []string{"Origin", "https://evil.example"}, 403, api.CodeCrossOrigin},
		"null Origin":              {"POST", "/api/notes", ok, []string{"Origin", "null"}, 403, api.CodeCrossOrigin},
		"own Origin":               {"POST", "/api/notes", ok, []string{"Origin", "http://example.com"}, 200, ""},
		"trusted Origin": {"POST", "/api/notes", ok, []string{"Origin", "https://trusted.example", "Sec-Fetch-Site", "cross-site"},
			200, ""},
		"cross-site read":       {"GET", "/api/nothing", "", []string{"Sec-Fetch-Site", "cross-site"}, 404, api.CodeNotFound},
		"no token":              {"POST", "/api/notes", ok, []string{"Authorization", ""}, 401, api.CodeUnauthorized},
		"basic":                 {"POST", "/api/notes", ok, []string{"Authorization", "Basic YTpi"}, 401, api.CodeUnauthorized},
		"bearer without token":  {"POST", "/api/notes", ok, []string{"Authorization", "Bearer "}, 401, api.CodeUnauthorized},
		"garbage token":         {"POST", "/api/notes", ok, []string{"Authorization", "Bearer \xff\x00"}, 401, api.CodeTokenInvalid},
		"expired token":         {"POST", "/api/notes", ok, []string{"Authorization", "bearer old"}, 401, api.CodeTokenExpired},
		"token of nobody":       {"POST", "/api/notes", ok, []string{"Authorization", "Bearer nobody"}, 401, api.CodeTokenInvalid},
		"token for one channel": {"POST", "/api/notes", ok, []string{"Authorization", "Bearer channel"}, 401, api.CodeTokenInvalid},
		"keys away":             {"POST", "/api/notes", ok, []string{"Authorization", "Bearer away"}, 503, api.CodeUnavailable},
		"a failure of ours":     {"GET", "/api/fail", "", nil, 500, api.CodeInternal},
		"a panic":               {"GET", "/api/panic", "", nil, 500, api.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := send(t, a, tc.method, tc.path, tc.body, tc.header...)
			want := ""
			if tc.code != "" {
				want = api.TypePrefix + string(tc.code)
			}
			if w.Code != tc.status || p.Type != want {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tc.status, want)
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
			if w.Code == 405 && w.Header().Get("Allow") == "" {
				t.Error("no Allow")
			}
			if w.Code == 503 && w.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		})
	}
}

func TestProblemsEchoLittle(t *testing.T) {
	a, _, _ := fixture(t)
	long := strings.Repeat("é", 50_000)
	var many strings.Builder
	for i := range 5_000 {
		fmt.Fprintf(&many, `,"k%d":1`, i)
	}
	for name, body := range map[string]string{"value": `{"title":"` + long + `"}`, "key": `{"` + long + `":1}`, "twice": `{"` + long + `":1,"` + long + `":1}`,
		"garbage": long, "keys": `{"title":"a"` + many.String() + `}`} {
		w, p := send(t, a, "POST", "/api/notes", body)
		if w.Body.Len() > 16<<10 || len(p.Errors) > api.ErrorsMax {
			t.Errorf("%s: a problem of %d bytes with %d errors", name, w.Body.Len(), len(p.Errors))
		}
	}
}

func TestRequestIDs(t *testing.T) {
	a, log, _ := fixture(t)
	for in, keep := range map[string]bool{"abc-1._X": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a b": false, "a\"b": false,
		"": false, "é": false} {
		log.Reset()
		w, _ := send(t, a, "GET", "/api/fail", "", "X-Request-Id", in, "X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678")
		got := w.Header().Get("X-Request-Id")
		if (got == in) != keep || got == "" {
			t.Errorf("%q became %q", in, got)
		}
		if !strings.Contains(log.String(), `"request_id":"`+got+`"`) || !strings.Contains(log.String(), `"trace_id":"67891233abcdef012345678912345678"`) {
			t.Errorf("the log has neither: %s", log)
		}
	}
}

func TestLogsAndMetersTellFailuresApart(t *testing.T) {
	a, log, m := fixture(t)
	for path, level := range map[string]string{"/api/fail": "ERROR", "/api/panic": "ERROR", "/api/nothing": "INFO"} {
		log.Reset()
		send(t, a, "GET", path, "")
		if !strings.Contains(log.String(), `"level":"`+level+`"`) {
			t.Errorf("%s: %s", path, log)
		}
		if level == "ERROR" && !strings.Contains(log.String(), "secret-host") {
			t.Errorf("%s: the cause is not in the log: %s", path, log)
		}
	}
	log.Reset()
	send(t, a, "POST", "/api/notes", `{"title":"a"}`)
	if s := log.String(); strings.Contains(s, "INFO") || strings.Contains(s, "ERROR") {
		t.Errorf("a success costs a line: %s", s)
	}
	if m.n[metric.RequestErrors] != 2 || m.n[metric.RequestLatency] != 4 {
		t.Errorf("measured %v", m.n)
	}
}

func TestBodyThatNeverEndsIsRefused(t *testing.T) {
	a, _, _ := fixture(t)
	body := strings.NewReader(pad(4 * limit.BodyBytes))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/notes", struct{ io.Reader }{body})
	r.ContentLength = -1 // it comes in chunks
	res := httptest.NewRecorder()
	a.ServeHTTP(res, r)
	if read := 4*limit.BodyBytes - body.Len(); res.Code != http.StatusRequestEntityTooLarge || read > 2*limit.BodyBytes {
		t.Errorf("status %d after %d bytes", res.Code, read)
	}
}

func TestDocument(t *testing.T) {
	a, _, _ := fixture(t)
	b, err := a.Document()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Security []map[string][]string
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || len(doc.Paths["/api/notes"]["post"].Security) != 1 || doc.Paths["/api/fail"]["get"].Security != nil {
		t.Errorf("%+v", doc)
	}
}

func FuzzStrictJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"a":2}`, `[[{"a":{"b":1}}]]`, `1 2`, `"\ud800"`, "", " ", `{"a"`, `[1,]`, `{"":{"":0}}`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := api.StrictJSON(b)
		if err == nil && !json.Valid(b) {
			t.Errorf("accepted what is not JSON: %q", b)
		}
		if err != nil && json.Valid(b) {
			// Only the three reasons of our own remain.
			for _, reason := range []string{"UTF-8", "twice", "nested"} {
				if strings.Contains(err.Error(), reason) {
					return
				}
			}
			t.Errorf("refused JSON %q: %v", b, err)
		}
	})
}
