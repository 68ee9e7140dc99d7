package otlp

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/shared/trace"
	"tideline/test/leak"
	"tideline/test/otlptest"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestTracingIsOffUnlessTheEnvironmentAsksForIt(t *testing.T) {
	for _, c := range []struct{ env, url, mistake string }{
		{"", "", ""},
		{"OTEL_SERVICE_NAME=x OTEL_EXPORTER_OTLP_HEADERS=a=b", "", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "http://c:4318/v1/traces", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=https://c/base/", "https://c/base/v1/traces", ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c/traces", "http://c/traces", ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c/traces OTEL_EXPORTER_OTLP_ENDPOINT=http://d", "http://c/traces", ""},
		{"OTEL_TRACES_EXPORTER=otlp", "http://localhost:4318/v1/traces", ""},
		{"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "http://localhost:4318/v1/traces", ""},
		{"OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "", ""},
		{"OTEL_SDK_DISABLED=true OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "", ""},
		{"OTEL_TRACES_EXPORTER=zipkin", "", "OTEL_TRACES_EXPORTER"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=c:4318", "", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=ftp://c", "", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://", "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "", "OTEL_EXPORTER_OTLP_PROTOCOL"},
	} {
		env := map[string]string{}
		for _, one := range strings.Fields(c.env) {
			name, value, _ := strings.Cut(one, "=")
			env[name] = value
		}
		s, err := Parse(func(name string) string { return env[name] })
		if s.URL != c.url || (err == nil) != (c.mistake == "") || err != nil && !strings.Contains(err.Error(), c.mistake) {
			t.Errorf("%s: %+v, %v", c.env, s, err)
		}
	}
	off, err := Open(t.Context(), Settings{}, "s", "i", "v", slog.New(slog.DiscardHandler))
	if err != nil || off.Provider != nil {
		t.Errorf("%+v, %v", off, err)
	}
	off.Close()
}

func TestSpansCarryParentsAttributesAndTheService(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=from-the-environment")
	c := otlptest.Start(t)
	tr, err := Open(t.Context(), Settings{URL: c.URL + "/v1/traces"}, "tideline-test", "one", "v1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const id = "0af7651916cd43dd8448eb211c80319c"
	given := trace.From(t.Context(), "00-"+id+"-b7ad6b7169203331-01")
	ctx, outer := trace.Enter(given, tr.Provider, trace.Server, "GET", "/x", "a", "b")
	_, inner := trace.Start(ctx, trace.Producer, "publish", "todos")
	inner.SetNumber("n", 7)
	inner.End(context.DeadlineExceeded)
	outer.End(nil)
	_, root := trace.Enter(t.Context(), tr.Provider, trace.Internal, "alone", "")
	root.End(nil)
	_, unsampled := trace.Enter(trace.From(t.Context(), "00-"+id+"-b7ad6b7169203331-00"), tr.Provider, trace.Internal, "never", "")
	unsampled.End(nil)
	tr.Close() // sends what waits
	spans := c.Trace("")
	if len(spans) != 3 {
		t.Fatalf("%+v", spans)
	}
	in, out, alone := spans[0], spans[1], spans[2]
	if out.Name != "GET /x" || out.Parent != "b7ad6b7169203331" || out.TraceID != id || out.Attributes["a"] != "b" || out.Failed != "" ||
		out.Service != "tideline-test" || out.Instance != "from-the-environment" || out.Version != "v1" {
		t.Errorf("%+v", out)
	}
	if in.Name != "publish todos" || in.Parent != out.ID || in.TraceID != id || in.Attributes["n"] != "7" || in.Failed != "context deadline exceeded" {
		t.Errorf("%+v", in)
	}
	if alone.Name != "alone" || alone.Parent != "" || alone.TraceID == id {
		t.Errorf("%+v", alone)
	}
}

// said counts log records.
type said struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (s *said) Enabled(context.Context, slog.Level) bool { return true }

func (s *said) Handle(_ context.Context, r slog.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, r.Message)
	return nil
}

// A collector that is away costs its spans, a log line, and a bounded time at the end.
func TestACollectorThatIsAwayCostsSpansOnly(t *testing.T) {
	log := &said{}
	tr, err := Open(t.Context(), Settings{URL: "http://127.0.0.1:1/v1/traces"}, "s", "i", "v", slog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 5000 { // more than the queue holds
		_, s := trace.Enter(t.Context(), tr.Provider, trace.Internal, "x", "")
		s.End(nil)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("5000 spans took %v: somebody waits for the collector", took)
	}
	began = time.Now()
	tr.Close()
	if took := time.Since(began); took > closeTimeout+20*time.Second {
		t.Errorf("the end took %v", took)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if len(log.lines) == 0 || len(log.lines) > 2 {
		t.Errorf("logged %q", log.lines)
	}
}

func TestIDsAreValidAndBeginWithTheTime(t *testing.T) {
	for range 100 {
		trace, span := ids{}.NewIDs(t.Context())
		if !trace.IsValid() || !span.IsValid() || !(ids{}).NewSpanID(t.Context(), trace).IsValid() {
			t.Fatal(trace, span)
		}
		if s := int64(trace[0])<<24 | int64(trace[1])<<16 | int64(trace[2])<<8 | int64(trace[3]); time.Since(time.Unix(s, 0)).Abs() > time.Minute {
			t.Fatalf("%v begins with %d", trace, s)
		}
	}
}
