// Package trace carries W3C trace contexts from what causes a publication to who delivers it, and opens spans where tracing is on.
//
// It is OpenTelemetry's API without its SDK, so that functions and publishers stay small: a context that came with a request or an event travels
// on whether or not this process records spans. Who records is opened by package otlp, and enters with Enter; below it Start follows the span
// that the context holds. Everything here is safe for concurrent use, and costs nothing to speak of where no context came.
package trace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"
)

const (
	// Tag is the publication tag, and the HTTP header, that holds a W3C traceparent.
	Tag = "traceparent"
	// TagBytes is what the tag takes of limit.TagsBytes: its name and its value.
	TagBytes = len(Tag) + len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	// AmazonHeader is what AWS's load balancers and Lambda put their trace ids into.
	AmazonHeader = "X-Amzn-Trace-Id"
	// scope names what opens the spans.
	scope = "tideline"
)

// Provider opens spans. Nil opens none.
type Provider = oteltrace.TracerProvider

// Kind of a span.
type Kind = oteltrace.SpanKind

// Kinds of spans.
const (
	Internal = oteltrace.SpanKindInternal
	Server   = oteltrace.SpanKindServer
	Client   = oteltrace.SpanKindClient
	Producer = oteltrace.SpanKindProducer
	Consumer = oteltrace.SpanKindConsumer
)

// Span is an open span, or none.
type Span struct{ span oteltrace.Span }

// Enter opens a span of a provider, below what the context came with. The name is verb and of, and of few different values.
func Enter(ctx context.Context, p Provider, kind Kind, verb, of string, pairs ...string) (context.Context, Span) {
	if p == nil {
		return ctx, Span{}
	}
	ctx, span := p.Tracer(scope).Start(ctx, strings.TrimSpace(verb+" "+of), oteltrace.WithSpanKind(kind))
	s := Span{span}
	s.Set(pairs...)
	return ctx, s
}

// Start opens a child of the span that ctx holds, if that one is recorded here.
func Start(ctx context.Context, kind Kind, verb, of string, pairs ...string) (context.Context, Span) {
	span := oteltrace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return ctx, Span{}
	}
	return Enter(ctx, span.TracerProvider(), kind, verb, of, pairs...)
}

// Recorded reports whether what is set will be seen by anybody.
func (s Span) Recorded() bool { return s.span != nil && s.span.IsRecording() }

// Set adds attributes: name, value, name, value…
func (s Span) Set(pairs ...string) {
	if !s.Recorded() {
		return
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		s.span.SetAttributes(attribute.String(pairs[i], pairs[i+1]))
	}
}

// SetNumber adds an attribute that is a number.
func (s Span) SetNumber(name string, n int) {
	if s.Recorded() {
		s.span.SetAttributes(attribute.Int(name, n))
	}
}

// Fail marks the span as failed.
func (s Span) Fail(why string) {
	if s.Recorded() {
		s.span.SetStatus(codes.Error, why)
	}
}

// End closes the span, failed if err is not nil.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.Fail(err.Error())
	}
	s.span.End()
}

// Parent is the traceparent to hand on, or "" if there is no trace or nobody records it: an unsampled trace has no spans to be found by, and
// its tag would only cost every subscriber its bytes.
func Parent(ctx context.Context) string {
	c := oteltrace.SpanContextFromContext(ctx)
	if !c.IsValid() || !c.IsSampled() {
		return ""
	}
	trace, span := c.TraceID(), c.SpanID()
	b := make([]byte, 0, TagBytes)
	b = hex.AppendEncode(append(b, "00-"...), trace[:])
	b = hex.AppendEncode(append(b, '-'), span[:])
	return string(append(b, "-01"...))
}

// ID is the trace id, sampled or not, as 32 hexadecimal digits; "" if there is none.
func ID(ctx context.Context) string {
	c := oteltrace.SpanContextFromContext(ctx)
	if !c.HasTraceID() {
		return ""
	}
	return c.TraceID().String()
}

// From puts ctx below a traceparent. A malformed one changes nothing.
func From(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{Tag: traceparent})
}

// FromRequest puts ctx below what a request came with: its traceparent; else what ctx already holds, which is the Lambda invocation's; else the load
// balancer's header.
func FromRequest(ctx context.Context, h http.Header) context.Context {
	if parent := h.Get(Tag); parent != "" {
		if found := oteltrace.SpanContextFromContext(From(context.Background(), parent)); found.IsValid() {
			return oteltrace.ContextWithRemoteSpanContext(ctx, found)
		}
	}
	if oteltrace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return FromAmazon(ctx, h.Get(AmazonHeader))
}

// amazonBytes is the longest header that is looked at. AWS's own are under 300 bytes.
const amazonBytes = 1024

// FromAmazon puts ctx below X-Ray's form of a context, Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1. A malformed one
// changes nothing. Without a parent, as load balancers send it, there is only a trace id, for logs: nobody has decided to record it.
func FromAmazon(ctx context.Context, header string) context.Context {
	if header == "" || len(header) > amazonBytes {
		return ctx
	}
	var c oteltrace.SpanContextConfig
	sampled := false
	for field := range strings.SplitSeq(header, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		var err error
		switch name {
		case "Root":
			c.TraceID, err = amazonRoot(value)
		case "Parent":
			c.SpanID, err = oteltrace.SpanIDFromHex(value)
		case "Sampled":
			sampled = value == "1"
		}
		if err != nil {
			return ctx
		}
	}
	if !c.TraceID.IsValid() {
		return ctx
	}
	switch {
	case !c.SpanID.IsValid():
		_, _ = rand.Read(c.SpanID[:]) // it never fails
	case sampled:
		c.TraceFlags = oteltrace.FlagsSampled
	}
	return oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(c))
}

func amazonRoot(value string) (oteltrace.TraceID, error) {
	rest, ok := strings.CutPrefix(value, "1-")
	seconds, random, both := strings.Cut(rest, "-")
	if !ok || !both || len(seconds) != 8 {
		return oteltrace.TraceID{}, errAmazonRoot
	}
	return oteltrace.TraceIDFromHex(seconds + random)
}

type traceError string

func (e traceError) Error() string { return string(e) }

const errAmazonRoot = traceError("no trace id of X-Ray's form")

// LogHandler adds trace_id of the context to every record of h.
func LogHandler(h slog.Handler) slog.Handler { return logHandler{h} }

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if id := ID(ctx); id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }
