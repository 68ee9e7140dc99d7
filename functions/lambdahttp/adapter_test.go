package lambdahttp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tideline/functions/lambdahttp"
	lambdatest "tideline/test/lambda"
)

// seen is what a handler got.
type seen struct {
	method, path, remote, host string
	query                      url.Values
	header                     http.Header
	body                       []byte
}

// function records what it gets and answers what answer writes.
func function(answer func(http.ResponseWriter)) (*lambdahttp.Function, *seen) {
	s := &seen{}
	return &lambdahttp.Function{Log: slog.New(slog.DiscardHandler), HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		*s = seen{method: r.Method, path: r.URL.Path, remote: r.RemoteAddr, host: r.Host, query: r.URL.Query(), header: r.Header, body: b}
		if answer != nil {
			answer(w)
		}
	})}, s
}

// ways are the three kinds of HTTP events.
var ways = map[string]struct {
	multi bool
	event func(testing.TB, *http.Request) []byte
}{
	"alb multi":    {true, func(t testing.TB, r *http.Request) []byte { return lambdatest.ALB(t, r, true) }},
	"alb single":   {false, func(t testing.TB, r *http.Request) []byte { return lambdatest.ALB(t, r, false) }},
	"function url": {false, func(t testing.TB, r *http.Request) []byte { return lambdatest.FunctionURL(t, r) }},
}

func invoke(t testing.TB, f *lambdahttp.Function, payload []byte) []byte {
	t.Helper()
	out, err := f.Invoke(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPercentEncodingIsUndoneOnce(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			f, got := function(nil)
			for target, want := range map[string]struct{ path, key, value string }{
				"/a%2Fb%20c/%25?k=v":          {"/a/b c/%", "k", "v"},
				"/a?k=%2525":                  {"/a", "k", "%25"},
				"/a?k=a%26b%3Dc":              {"/a", "k", "a&b=c"},
				"/a?k%5B%5D=x+y":              {"/a", "k[]", "x y"},
				"/a?%C3%A9=%F0%9F%8C%8A":      {"/a", "é", "🌊"},
				"/a?empty":                    {"/a", "empty", ""},
				"/%C3%A9":                     {"/é", "", ""},
				"//double//slash?k=%2F%2f":    {"//double//slash", "k", "//"},
				"/a;b=c?k=1":                  {"/a;b=c", "k", "1"},
				"/a?k=https%3A%2F%2Fx%2F%3Fa": {"/a", "k", "https://x/?a"},
			} {
				invoke(t, f, way.event(t, lambdatest.Request(t, "GET", target, "")))
				if got.path != want.path || (want.key != "" && (got.query.Get(want.key) != want.value || !got.query.Has(want.key))) {
					t.Errorf("%s: path %q, query %v; want %+v", target, got.path, got.query, want)
				}
			}
		})
	}
}

func TestRequestComesThroughWhole(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			f, got := function(nil)
			binary := "\x00\xff\xfe\x80"
			r := lambdatest.Request(t, "PATCH", "/x", binary)
			r.Header = http.Header{"Content-Type": {"application/octet-stream"}, "Cookie": {"a=1; b=2"}, "X-One": {"1"}, "If-Match": {`"3"`}}
			invoke(t, f, way.event(t, r))
			if got.method != "PATCH" || string(got.body) != binary || got.host != "app.example.org" || got.header.Get("If-Match") != `"3"` ||
				got.header.Get("Host") != "" {
				t.Errorf("%+v", got)
			}
			cookies := (&http.Request{Header: got.header}).Cookies()
			if len(cookies) != 2 || cookies[1].Value != "2" {
				t.Errorf("cookies %v", cookies)
			}
			want := "198.51.100.9:0"
			if name == "function url" {
				want = "203.0.113.7:0"
			}
			if got.remote != want {
				t.Errorf("remote %q, want %q", got.remote, want)
			}
		})
	}
}

func TestMultiValuesKeepTheirOrder(t *testing.T) {
	f, got := function(nil)
	r := lambdatest.Request(t, "GET", "/?k=1&j=0&k=2&k=1", "")
	r.Header = http.Header{"X-Many": {"b", "a"}}
	invoke(t, f, lambdatest.ALB(t, r, true))
	if !reflect.DeepEqual(got.query["k"], []string{"1", "2", "1"}) || !reflect.DeepEqual(got.header["X-Many"], []string{"b", "a"}) {
		t.Errorf("query %v, header %v", got.query, got.header["X-Many"])
	}
}

func TestResponseComesThroughWhole(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			f, _ := function(func(w http.ResponseWriter) {
				h := w.Header()
				h.Add("Set-Cookie", "a=1; Path=/")
				h.Add("Set-Cookie", "b=2, with comma")
				h.Add("X-Many", "1")
				h.Add("X-Many", "2")
				h.Set("Connection", "close")
				h.Set("Content-Length", "99")
				h.Set("Content-Type", "text/html")
				w.WriteHeader(http.StatusTeapot)
				h.Set("X-Late", "1")
				_, _ = w.Write([]byte("<p>&é</p>"))
			})
			payload := invoke(t, f, way.event(t, lambdatest.Request(t, "GET", "/", "")))
			res := lambdatest.Decode(t, payload, way.multi)
			if res.Status != 418 || string(res.Body) != "<p>&é</p>" || strings.Join(res.Header.Values("X-Many"), ", ") != "1, 2" {
				t.Errorf("%d %s %v", res.Status, res.Body, res.Header)
			}
			for _, none := range []string{"Connection", "Content-Length", "X-Late"} {
				if res.Header.Get(none) != "" {
					t.Errorf("%s: %q", none, res.Header.Get(none))
				}
			}
			want := []string{"a=1; Path=/", "b=2, with comma"}
			if name == "alb single" {
				want = want[1:] // all that this form can carry
			}
			if !reflect.DeepEqual(res.Header.Values("Set-Cookie"), want) {
				t.Errorf("cookies %q, want %q", res.Header.Values("Set-Cookie"), want)
			}
			if strings.Contains(string(payload), `\u003c`) {
				t.Error("HTML is escaped in the answer")
			}
			if strings.HasPrefix(name, "alb") && !strings.Contains(string(payload), `"statusDescription":"418 I'm a teapot"`) {
				t.Errorf("%s", payload)
			}
		})
	}
}

func TestBinaryAndCompressedBodiesAreBase64(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"binary": func(w http.ResponseWriter) { _, _ = w.Write([]byte{0xff, 0}) },
		"compressed": func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("as if"))
		},
	} {
		f, _ := function(answer)
		var out struct {
			IsBase64Encoded bool
			Body            string
		}
		if err := json.Unmarshal(invoke(t, f, lambdatest.ALB(t, lambdatest.Request(t, "GET", "/", ""), true)), &out); err != nil {
			t.Fatal(err)
		}
		if b, err := base64.StdEncoding.DecodeString(out.Body); err != nil || !out.IsBase64Encoded || len(b) == 0 {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

func TestResponseSizeAtTheLimitAndOnePast(t *testing.T) {
	size := 0
	f, _ := function(func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(bytes.Repeat([]byte("x"), size))
	})
	event := lambdatest.ALB(t, lambdatest.Request(t, "GET", "/", ""), true)
	overhead := len(invoke(t, f, event))
	size = lambdahttp.ResponseBytes - overhead
	if out := invoke(t, f, event); len(out) != lambdahttp.ResponseBytes || lambdatest.Decode(t, out, true).Status != 200 {
		t.Errorf("at the limit: %d bytes", len(out))
	}
	for _, size = range []int{size + 1, 2 * lambdahttp.ResponseBytes} {
		res := lambdatest.Decode(t, invoke(t, f, event), true)
		if res.Status != 500 || !strings.Contains(string(res.Body), "urn:tideline:problem:response-too-large") {
			t.Errorf("past the limit: %d", res.Status)
		}
	}
}

func TestMalformedHTTPEventsAreProblems(t *testing.T) {
	f, got := function(nil)
	for name, payload := range map[string]string{
		"bad escape in path":   `{"requestContext":{"elb":{}},"multiValueHeaders":{},"httpMethod":"GET","path":"/%zz"}`,
		"control character":    `{"requestContext":{"elb":{}},"multiValueHeaders":{},"httpMethod":"GET","path":"/\u0000"}`,
		"no path":              `{"requestContext":{"elb":{}},"multiValueHeaders":{},"httpMethod":"GET"}`,
		"absolute path":        `{"requestContext":{"elb":{}},"multiValueHeaders":{},"httpMethod":"GET","path":"http://evil/"}`,
		"bad method":           `{"requestContext":{"elb":{}},"multiValueHeaders":{},"httpMethod":"G T","path":"/"}`,
		"bad base64":           `{"requestContext":{"elb":{}},"multiValueHeaders":{},"httpMethod":"POST","path":"/","body":"%","isBase64Encoded":true}`,
		"health check, broken": `{"requestContext":{"elb":{}},"multiValueHeaders":{"user-agent":["ELB-HealthChecker/2.0"]},"httpMethod":"GET","path":""}`,
	} {
		*got = seen{}
		res := lambdatest.Decode(t, invoke(t, f, []byte(payload)), true)
		if res.Status != 400 || got.method != "" || !strings.Contains(string(res.Body), "urn:tideline:problem:invalid-request") {
			t.Errorf("%s: %d, handler got %+v", name, res.Status, got)
		}
	}
}

func TestHealthCheckNeedsNoHandlerAndCannotBeFeigned(t *testing.T) {
	f, got := function(func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) })
	if res := lambdatest.Decode(t, invoke(t, f, lambdatest.ALBHealthCheck(t, "/api/todos")), true); res.Status != 200 || got.method != "" {
		t.Errorf("%d, handler got %+v", res.Status, got)
	}
	r := lambdatest.Request(t, "GET", "/", "")
	r.Header.Set("User-Agent", "ELB-HealthChecker/2.0")
	if res := lambdatest.Decode(t, invoke(t, f, lambdatest.ALB(t, r, true)), true); res.Status != 403 {
		t.Errorf("a client that says it is a health checker: %d", res.Status)
	}
}

func TestEventsGoWhereTheyBelong(t *testing.T) {
	f, _ := function(nil)
	httpEvent := lambdatest.ALB(t, lambdatest.Request(t, "GET", "/", ""), true)
	for _, payload := range []string{`{}`, `[]`, `"x"`, `null`, `{"Records":[]}`, `{"requestContext":{}}`, `not JSON`, ``} {
		if _, err := f.Invoke(t.Context(), []byte(payload)); err == nil {
			t.Errorf("a function without event handler took %q", payload)
		}
	}
	events := &lambdahttp.Function{Log: slog.New(slog.DiscardHandler), Event: func(_ context.Context, raw json.RawMessage) (any, error) {
		if string(raw) == `"fail"` {
			return nil, errors.New("no")
		}
		return map[string]int{"n": len(raw)}, nil
	}}
	if out, err := events.Invoke(t.Context(), []byte(`{"Records":[]}`)); err != nil || string(out) != `{"n":14}` {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := events.Invoke(t.Context(), []byte(`"fail"`)); err == nil {
		t.Error("the handler's error was lost")
	}
	if _, err := events.Invoke(t.Context(), httpEvent); err == nil {
		t.Error("an HTTP event went to the event handler")
	}
}

func TestHandlersDeadlineLeavesTimeToAnswer(t *testing.T) {
	var handler time.Time
	f := &lambdahttp.Function{Log: slog.New(slog.DiscardHandler), HTTP: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		handler, _ = r.Context().Deadline()
	})}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := f.Invoke(ctx, lambdatest.ALB(t, lambdatest.Request(t, "GET", "/", ""), true)); err != nil {
		t.Fatal(err)
	}
	if d, _ := ctx.Deadline(); d.Sub(handler) != lambdahttp.AnswerMargin {
		t.Errorf("the handler's deadline is %v before the invocation's", d.Sub(handler))
	}
}

// FuzzRoundTrip sends a request over a real HTTP server and through each kind of event, and wants the handler to see the same.
func FuzzRoundTrip(f *testing.F) {
	f.Add("/a%20b", "k=v&k=%2525", "X-A", "value", []byte("body"), []byte("answer"))
	f.Add("/%2F/..//", "a&b=&=c&+=%2B", "X-Forwarded-For", "1.2.3.4", []byte{0xff, 0}, []byte{0xfe})
	f.Add("/", "k=1;j=2&%zz", "Cookie", "a=b", []byte(nil), []byte("<é>"))
	f.Fuzz(func(t *testing.T, path, query, name, value string, body, answer []byte) {
		target := path
		if query != "" {
			target += "?" + query
		}
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(path, "/") || strings.Contains(path, "?") || !utf8.ValidString(target) ||
			strings.ContainsAny(target, "\" <>\\^`{|}") {
			t.Skip("no request line")
		}
		r := &http.Request{Method: "POST", URL: u, Host: "app.example.org", Header: http.Header{"Content-Type": {"application/octet-stream"}},
			Body: io.NopCloser(bytes.NewReader(body))}
		if strings.HasPrefix(name, "X-Fuzz-") && utf8.ValidString(value) {
			r.Header.Set(name, value)
		}
		// What net/http itself makes of the same request line.
		direct := httptest.NewRequest("POST", "/", nil)
		direct.URL = u
		for kind, way := range ways {
			fn, got := function(func(w http.ResponseWriter) { _, _ = w.Write(answer) })
			r.Body = io.NopCloser(bytes.NewReader(body))
			res := lambdatest.Decode(t, invoke(t, fn, way.event(t, r)), way.multi)
			if res.Status != 200 || !bytes.Equal(res.Body, answer) {
				t.Fatalf("%s: answer %d %q, want %q", kind, res.Status, res.Body, answer)
			}
			if got.path != u.Path || !bytes.Equal(got.body, body) {
				t.Fatalf("%s: path %q body %q, want %q %q", kind, got.path, got.body, u.Path, body)
			}
			want := direct.URL.Query()
			if kind == "alb single" {
				if _, err := url.ParseQuery(u.RawQuery); err != nil {
					continue // the one pair of a key that arrives may be the malformed one, which net/http drops
				}
				for k, v := range want {
					if g := got.query[k]; len(v) == 1 && (len(g) != 1 || g[0] != v[0]) {
						t.Fatalf("%s: query %v, want %v", kind, got.query, want)
					}
				}
			} else if !reflect.DeepEqual(map[string][]string(got.query), map[string][]string(want)) {
				t.Fatalf("%s: query %v, want %v", kind, got.query, want)
			}
		}
	})
}
