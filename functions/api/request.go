package api

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"

	"tideline/shared/trace"
)

// RequestIDHeader carries the request's id, both ways. An id that a caller sends is kept if it has 1 to 64 letters, digits, '.', '_' or '-'.
const RequestIDHeader = "X-Request-Id"

type requestKey struct{}

type request struct{ id string }

// RequestID of the request that a handler serves, or "" outside one.
func RequestID(ctx context.Context) string {
	q, _ := ctx.Value(requestKey{}).(request)
	return q.id
}

// WithRequestID names the request or event that ctx serves, for logs.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, request{id})
}

func withRequest(r *http.Request) (context.Context, string) {
	id := r.Header.Get(RequestIDHeader)
	if !validRequestID(id) {
		id = RequestID(r.Context())
	}
	if id == "" {
		id = rand.Text()
	}
	return WithRequestID(trace.FromRequest(r.Context(), r.Header), id), id
}

func validRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// LogHandler adds request_id and trace_id of the context to every record of h.
func LogHandler(h slog.Handler) slog.Handler { return logHandler{trace.LogHandler(h)} }

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if q, ok := ctx.Value(requestKey{}).(request); ok {
		r = r.Clone()
		r.AddAttrs(slog.String("request_id", q.id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }

// recorder remembers what was answered. One request owns it.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
	route  string
}

func (w *recorder) WriteHeader(status int) {
	if status >= 200 && !w.wrote {
		w.status, w.wrote = status, true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if !w.wrote {
		w.status, w.wrote = http.StatusOK, true
	}
	return w.ResponseWriter.Write(b)
}

// code is what was answered; nothing yet will be 200.
func (w *recorder) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// headersOnly takes an answer and keeps its status and headers.
type headersOnly struct {
	header http.Header
	status int
}

func (w *headersOnly) Header() http.Header         { return w.header }
func (w *headersOnly) Write(b []byte) (int, error) { return len(b), nil }
func (w *headersOnly) WriteHeader(status int)      { w.status = status }

type discard struct{}

func (discard) Add(string, float64, ...string)     {}
func (discard) Observe(string, float64, ...string) {}
