package conn

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/token"
	"tideline/shared/trace"
	"tideline/shared/trace/otlp"
	"tideline/test/otlptest"
)

const (
	otherTrace = "0af7651916cd43dd8448eb211c80319c"
	otherSpan  = "00-" + otherTrace + "-b7ad6b7169203331-01"
)

// The hub asks nobody when nobody would see the answer: that is what off costs.
func TestNothingIsTracedUnlessItIsAskedFor(t *testing.T) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	if s := (&Service{o: Options{}, log: quiet}); s.tracer() != nil {
		t.Error("the hub asks about every publication with tags")
	}
	talking := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := &Service{o: Options{}, log: talking}
	if s.tracer() == nil {
		t.Error("debug lines are wanted, and the hub doesn't ask")
	}
	if s.traced("system", &bus.Publication{Tags: map[string]string{"other": "x"}}) != nil {
		t.Error("a publication without a trace is traced")
	}
	tracing, err := otlp.Open(t.Context(), otlp.Settings{URL: otlptest.Start(t).URL}, "s", "i", "v", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer tracing.Close()
	if s := (&Service{o: Options{Tracing: tracing.Provider}, log: quiet}); s.tracer() == nil {
		t.Error("spans are wanted, and the hub doesn't ask")
	}
}

// Tags are the servers'. A client's own begin a trace of the node's where it traces, and are dropped.
func TestAClientCannotForgeTags(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50") // milliseconds
	collector := otlptest.Start(t)
	log := slog.New(slog.DiscardHandler)
	tracing, err := otlp.Open(t.Context(), otlp.Settings{URL: collector.URL + "/v1/traces"}, "s", "i", "v", log)
	if err != nil {
		t.Fatal(err)
	}
	redis := startRedis(t)
	off := startNode(t, redis.Addr(), "n1", nil)
	on := startNode(t, redis.Addr(), "n2", func(o *Options) { o.Tracing = tracing.Provider })
	for i, n := range []*node{off, on} {
		r := n.connect(t, token.Claims{User: "ann"})
		r.send(`{"id":2,"subscribe":{"channel":"chat:a"}}`)
		r.want(`{"id":2,"subscribe":{}}`)
		for j, command := range []string{
			`{"id":3,"publish":{"channel":"chat:a","data":{},"tags":{"traceparent":"` + otherSpan + `","x":"y"}}}`,
			`{"id":4,"rpc":{"method":"publish","data":{"channel":"chat:a","data":{},"tags":{"traceparent":"` + otherSpan + `","x":"y"}}}}`} {
			r.send(command)
			r.read() // the reply and the push come in either order
			r.read()
			pubs, _, err := n.bus.History(t.Context(), "chat:a", bus.Page{Limit: 1, Reverse: true})
			if err != nil || len(pubs) != 1 || pubs[0].Offset != uint64(2*i+j+1) {
				t.Fatalf("%+v, %v", pubs, err)
			}
			tags := pubs[0].Tags
			parent := tags[trace.Tag]
			delete(tags, trace.Tag)
			if len(tags) > 0 || strings.Contains(parent, otherTrace) || (parent != "") != (n == on) {
				t.Errorf("node %d: tags %v, trace %q", i+1, tags, parent)
			}
		}
	}
	// A server's trace: one span for the node, not one for each of its sockets.
	second := on.connect(t, token.Claims{User: "bob"})
	second.send(`{"id":2,"subscribe":{"channel":"chat:a"}}`)
	second.want(`{"id":2,"subscribe":{}}`)
	if _, err := off.bus.Publish(trace.From(t.Context(), otherSpan), bus.Publication{Channel: "chat:a", Data: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	second.want(`{"push":{"channel":"chat:a","pub":{"tags":{"traceparent":"` + otherSpan + `"}}}}`)
	// The span ends after the write that the test has read.
	for deadline := time.Now().Add(patience); len(collector.Trace(otherTrace)) == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
	}
	tracing.Close()
	spans := collector.Trace(otherTrace)
	if len(spans) != 1 || spans[0].Name != "deliver chat" || spans[0].Parent != "b7ad6b7169203331" || spans[0].Attributes["tideline.frames"] != "2" {
		t.Errorf("%+v", spans)
	}
}
