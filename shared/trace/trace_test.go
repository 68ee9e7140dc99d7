package trace_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	oteltrace "go.opentelemetry.io/otel/trace"

	"tideline/shared/trace"
)

const (
	id      = "0af7651916cd43dd8448eb211c80319c"
	sampled = "00-" + id + "-b7ad6b7169203331-01"
	amazon  = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
)

func TestATraceparentComesBackAsItWas(t *testing.T) {
	if got := trace.Parent(trace.From(t.Context(), sampled)); got != sampled || len(trace.Tag)+len(got) != trace.TagBytes {
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"", "x", strings.ToUpper(sampled), sampled + "-x", sampled[:54], "ff" + sampled[2:],
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-" + id + "-0000000000000000-01", strings.Repeat("0", 1<<16)} {
		ctx := trace.From(t.Context(), bad)
		if trace.Parent(ctx) != "" || trace.ID(ctx) != "" {
			t.Errorf("%.60q was taken for a context", bad)
		}
	}
	quiet := trace.From(t.Context(), strings.TrimSuffix(sampled, "1")+"0")
	if trace.Parent(quiet) != "" || trace.ID(quiet) != id {
		t.Errorf("not sampled: %q, %q", trace.Parent(quiet), trace.ID(quiet))
	}
}

func TestAmazonsForm(t *testing.T) {
	for _, c := range []struct{ header, parent, id string }{
		{amazon, "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01", "5759e988bd862e3fe1be46a994272793"},
		{"Self=1-67891234-12456789abcdef012345678;" + amazon, "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01", "5759e988bd862e3fe1be46a994272793"},
		{"Sampled=1; Parent=53995c3f42cd8ad8; Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=1:a87bd80c:1|68fd508a:5",
			"00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01", "5759e988bd862e3fe1be46a994272793"},
		{strings.Replace(amazon, "Sampled=1", "Sampled=0", 1), "", "5759e988bd862e3fe1be46a994272793"},
		{strings.Replace(amazon, "Sampled=1", "Sampled=?", 1), "", "5759e988bd862e3fe1be46a994272793"},
		{"Root=1-5759e988-bd862e3fe1be46a994272793", "", "5759e988bd862e3fe1be46a994272793"},
		{"Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1", "", "5759e988bd862e3fe1be46a994272793"},
		{"", "", ""}, {"Root=", "", ""}, {"Root=2-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1", "", ""},
		{"Root=1-5759e98-8bd862e3fe1be46a994272793", "", ""}, {"Root=1-00000000-000000000000000000000000", "", ""},
		{strings.Replace(amazon, "53995c3f42cd8ad8", "53995c3f42cd8adX", 1), "", ""}, {amazon + strings.Repeat(";x=y", 300), "", ""},
	} {
		ctx := trace.FromAmazon(t.Context(), c.header)
		if got := trace.Parent(ctx); got != c.parent || trace.ID(ctx) != c.id {
			t.Errorf("%.120q: parent %q, id %q", c.header, got, trace.ID(ctx))
		}
	}
}

func TestWhichContextOfARequestCounts(t *testing.T) {
	lambda := trace.FromAmazon(t.Context(), amazon)
	h := func(traceparent, header string) http.Header {
		return http.Header{"Traceparent": {traceparent}, "X-Amzn-Trace-Id": {header}}
	}
	const own = "5759e988bd862e3fe1be46a994272793"
	other := strings.Replace(amazon, "5759e988", "6759e988", 1)
	for _, c := range []struct {
		name string
		ctx  context.Context
		h    http.Header
		id   string
	}{
		{"the caller's", lambda, h(sampled, other), id}, {"the invocation's", lambda, h("", other), own}, {"the invocation's, past a bad one", lambda, h("x", other), own},
		{"the load balancer's", t.Context(), h("", other), "6" + own[1:]}, {"none", t.Context(), http.Header{}, ""},
	} {
		if got := trace.ID(trace.FromRequest(c.ctx, c.h)); got != c.id {
			t.Errorf("%s: %q, want %q", c.name, got, c.id)
		}
	}
}

// Without somebody who records there are no spans, and the context goes on as it came.
func TestNothingIsOpenedWhereNobodyRecords(t *testing.T) {
	ctx := trace.From(t.Context(), sampled)
	below, span := trace.Start(ctx, trace.Internal, "write", "todo", "a", "b")
	if trace.Parent(below) != sampled || span.Recorded() {
		t.Errorf("%q", trace.Parent(below))
	}
	span.Set("x", "y")
	span.SetNumber("n", 1)
	span.End(context.Canceled)
	below, span = trace.Enter(ctx, nil, trace.Server, "GET", "/")
	if span.End(nil); trace.Parent(below) != sampled {
		t.Error("a nil provider changed the context")
	}
	if n := testing.AllocsPerRun(100, func() {
		c, s := trace.Start(context.Background(), trace.Producer, "publish", "todos", "a", "b", "c", "d")
		if trace.Parent(c) != "" {
			t.Error("a parent out of nothing")
		}
		s.End(nil)
	}); n > 0 {
		t.Errorf("%v allocations where there is no trace", n)
	}
}

func TestLogLinesCarryTheTraceID(t *testing.T) {
	var out strings.Builder
	log := slog.New(trace.LogHandler(slog.NewTextHandler(&out, nil))).With("a", 1).WithGroup("g")
	log.InfoContext(trace.FromAmazon(t.Context(), "Root=1-5759e988-bd862e3fe1be46a994272793"), "one") // not sampled either
	log.InfoContext(t.Context(), "two")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "trace_id=5759e988bd862e3fe1be46a994272793") || strings.Contains(lines[1], "trace_id") {
		t.Errorf("%q", lines)
	}
}

func FuzzFromAmazon(f *testing.F) {
	f.Add(amazon)
	f.Add("Root=1-5759e988-bd862e3fe1be46a994272793;;=;Parent")
	f.Fuzz(func(t *testing.T, header string) {
		ctx := trace.FromAmazon(context.Background(), header)
		if c := oteltrace.SpanContextFromContext(ctx); c.HasTraceID() != c.HasSpanID() || c.IsSampled() && trace.Parent(ctx) == "" {
			t.Errorf("%q: %+v", header, c)
		}
		if p := trace.Parent(ctx); p != "" && trace.Parent(trace.From(context.Background(), p)) != p {
			t.Errorf("%q: %q can't be read back", header, p)
		}
	})
}
