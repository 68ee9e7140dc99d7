// Package api is what the REST functions have in common: the huma set-up, problem documents, request ids, and who may ask.
//
// A request passes, in this order: request id, panic guard, same-origin check, body limit, routing, bearer token (for operations
// that declare Bearer), huma's validation. Each refusal is an RFC 9457 problem with a stable type (see Code). Handlers read the
// caller with Caller. Nothing here keeps state between requests; an API is safe for concurrent use once its operations are registered.
package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tideline/shared/limit"
	"tideline/shared/metric"
	"tideline/shared/token"
	"tideline/shared/trace"
)

// Version of the REST API, as the OpenAPI document names it.
const Version = "1.0.0"

// Names of the security schemes in the OpenAPI document.
const (
	bearerScheme  = "bearer"
	sessionScheme = "session"
)

// SessionCookie is the name of the cookie that holds the session.
const SessionCookie = "tideline_session"

// Security of an operation: Bearer is enforced by the API, Session (the cookie) by the session function, which owns the cookie.
var (
	Bearer  = []map[string][]string{{bearerScheme: {}}}
	Session = []map[string][]string{{sessionScheme: {}}}
)

// Meter takes measurements; functions/meter has the implementations. Safe for concurrent use.
type Meter interface {
	// Add counts n. Observe records one value of a distribution. Labels are name, value, name, value…
	Add(name string, n float64, labels ...string)
	Observe(name string, value float64, labels ...string)
}

// Options of New.
type Options struct {
	// Verifier checks bearer tokens. Nil is for making the OpenAPI document only: every bearer operation then answers 503.
	Verifier token.Verifier
	// TrustedOrigins may send state-changing requests beside the own origin, as scheme://host[:port].
	TrustedOrigins []string
	Log            *slog.Logger // nil discards
	Meter          Meter        // nil discards
	// Tracing opens a span for each request. Nil opens none; the trace that a request came with goes on all the same.
	Tracing trace.Provider
	Now     func() time.Time
}

// API is one function's REST API. It is an http.Handler and, by embedding, a huma.API.
type API struct {
	huma.API
	mux      *http.ServeMux
	verifier token.Verifier
	origins  *http.CrossOriginProtection
	log      *slog.Logger
	meter    Meter
	tracing  trace.Provider
	now      func() time.Time
}

// New makes an API without operations; add them with Register. The error names a malformed trusted origin.
func New(o Options) (*API, error) {
	a := &API{mux: http.NewServeMux(), verifier: o.Verifier, origins: http.NewCrossOriginProtection(), log: o.Log, meter: o.Meter, tracing: o.Tracing, now: o.Now}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.meter == nil {
		a.meter = discard{}
	}
	if a.now == nil {
		a.now = time.Now
	}
	for _, origin := range o.TrustedOrigins {
		if err := a.origins.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
	}
	a.API = humago.New(a.mux, a.config())
	a.UseMiddleware(a.authenticate)
	return a, nil
}

func (a *API) config() huma.Config {
	c := huma.DefaultConfig("Tideline", Version)
	c.Info.Description = "The REST API of Tideline. Errors are RFC 9457 problem documents whose `type` is stable."
	// The document and its page are served in one place for all functions; schema links would put a $schema into every answer.
	c.OpenAPIPath, c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", "", nil
	c.RejectUnknownQueryParameters = true
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format}
	c.Transformers = []huma.Transformer{a.finish}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		bearerScheme: {Type: "http", Scheme: "bearer", BearerFormat: "JWT",
			Description: "The token of POST /api/session or POST /api/session/token; about an hour."},
		sessionScheme: {Type: "apiKey", In: "cookie", Name: SessionCookie, Description: "The HttpOnly session cookie."},
	}
	return c
}

// Register adds an operation with the limits that all operations share. It panics on a malformed operation: a programming error.
func Register[I, O any](a *API, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	// The body was already limited and read by ServeHTTP; huma refuses a body of exactly its own maximum.
	op.MaxBodyBytes = limit.BodyBytes + 1
	op.BodyReadTimeout = -1
	huma.Register(a.API, op, handler)
}

// Handle adds a plain handler for what is not a JSON operation (a redirect, a page, a document). The pattern is ServeMux's.
func (a *API) Handle(pattern string, h http.Handler) { a.mux.Handle(pattern, h) }

// Document is the OpenAPI 3.1 document of the registered operations, indented, with a final newline.
func (a *API) Document() ([]byte, error) {
	raw, err := json.Marshal(a.OpenAPI())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := a.now()
	ctx, id := withRequest(r)
	ctx, span := a.span(ctx, r)
	r = r.WithContext(ctx)
	rec := &recorder{ResponseWriter: w}
	h := rec.Header()
	h.Set(RequestIDHeader, id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if values := r.Header.Values("Accept"); len(values) > 0 {
		r.Header["Accept"] = accepted(values)
	}
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			a.log.ErrorContext(ctx, "panic in handler", "panic", p, "stack", string(debug.Stack()))
			if !rec.wrote {
				WriteProblem(rec, r, http.StatusInternalServerError, CodeInternal, "")
			}
		}
		a.measure(ctx, r, rec, a.now().Sub(started))
		span.SetNumber("http.response.status_code", rec.code())
		if rec.code() >= 500 {
			span.Fail(rec.Header().Get(problemHeader))
		}
		span.End(nil)
	}()
	if err := a.origins.Check(r); err != nil {
		WriteProblem(rec, r, http.StatusForbidden, CodeCrossOrigin, "State-changing requests are accepted from the same origin only.")
		return
	}
	if !a.limitBody(rec, r) {
		return
	}
	a.route(rec, r)
}

// span is the request's, named by its operation.
func (a *API) span(ctx context.Context, r *http.Request) (context.Context, trace.Span) {
	if a.tracing == nil {
		return ctx, trace.Span{}
	}
	_, pattern := a.mux.Handler(r)
	return trace.Enter(ctx, a.tracing, trace.Server, "", cmp.Or(pattern, "no operation"), "http.request.method", clip(r.Method, 16), "http.route", pattern)
}

// accepted keeps what is well formed of the Accept header (RFC 9110, section 12.5.1), with no parameter but the weight: huma's negotiation
// slices past the end of some malformed ones.
func accepted(values []string) []string {
	var kept []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			kind, params, err := mime.ParseMediaType(part)
			if err != nil || !strings.Contains(kind, "/") {
				continue
			}
			if q, ok := params["q"]; ok {
				weight, err := strconv.ParseFloat(q, 64)
				if err != nil || !(weight >= 0 && weight <= 1) {
					continue
				}
				kind += ";q=" + strconv.FormatFloat(weight, 'f', 3, 64)
			}
			kept = append(kept, kind)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return []string{strings.Join(kept, ", ")}
}

// route sends what the mux has no operation for to a problem document instead of the mux's plain text.
func (a *API) route(w *recorder, r *http.Request) {
	_, pattern := a.mux.Handler(r)
	w.route = pattern
	if pattern != "" {
		a.mux.ServeHTTP(w, r)
		return
	}
	probe := &headersOnly{header: http.Header{}}
	a.mux.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", probe.header.Get("Allow"))
		WriteProblem(w, r, http.StatusMethodNotAllowed, CodeMethodNotAllowed, "")
		return
	}
	WriteProblem(w, r, http.StatusNotFound, CodeNotFound, "There is nothing at this path.")
}

// limitBody reads the whole body, so that a body past the limit is refused before any work and a handler never waits for a client.
func (a *API) limitBody(w http.ResponseWriter, r *http.Request) bool {
	if r.Body == nil || r.Body == http.NoBody {
		return true
	}
	tooLarge := func() bool {
		WriteProblem(w, r, http.StatusRequestEntityTooLarge, CodeBodyTooLarge,
			"The body may have at most "+strconv.Itoa(limit.BodyBytes)+" bytes.")
		return false
	}
	if r.ContentLength > limit.BodyBytes {
		return tooLarge()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit.BodyBytes))
	var past *http.MaxBytesError
	switch {
	case errors.As(err, &past):
		return tooLarge()
	case err != nil:
		WriteProblem(w, r, http.StatusBadRequest, CodeInvalidRequest, "The body could not be read.")
		return false
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return true
}

// measure logs what went wrong at the level it deserves; a success costs no line unless debug is on.
func (a *API) measure(ctx context.Context, r *http.Request, rec *recorder, took time.Duration) {
	status := rec.code()
	level := slog.LevelDebug
	switch {
	case status >= 500:
		level = slog.LevelError
		a.meter.Add(metric.RequestErrors, 1)
	case status >= 400:
		level = slog.LevelInfo
	}
	a.meter.Observe(metric.RequestLatency, took.Seconds())
	a.log.LogAttrs(ctx, level, "request", slog.String("method", clip(r.Method, 16)), slog.String("route", rec.route),
		slog.Int("status", status), slog.Duration("took", took), slog.String("problem", rec.Header().Get(problemHeader)))
}

// authenticate enforces Bearer on the operations that declare it.
func (a *API) authenticate(ctx huma.Context, next func(huma.Context)) {
	needs := slices.ContainsFunc(ctx.Operation().Security, func(s map[string][]string) bool { _, ok := s[bearerScheme]; return ok })
	if !needs {
		next(ctx)
		return
	}
	r, w := humago.Unwrap(ctx)
	claims, p := a.bearer(ctx.Context(), ctx.Header("Authorization"))
	if p != nil {
		if p.Status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="tideline"`)
		}
		writeProblem(w, r, p)
		return
	}
	next(huma.WithValue(ctx, callerKey{}, claims))
}
