package api

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Code names a kind of problem. A problem document's type is TypePrefix + code; codes never change their meaning.
type Code string

// TypePrefix begins every problem type.
const TypePrefix = "urn:tideline:problem:"

// Codes that more than one function uses. A function adds its own next to the handler that answers them.
const (
	CodeInvalidRequest   Code = "invalid-request"    // 400: not JSON, duplicate keys, invalid UTF-8, nested too deeply
	CodeUnauthorized     Code = "unauthorized"       // 401: no token, or no session
	CodeTokenExpired     Code = "token-expired"      // 401: get a new token and try again
	CodeTokenInvalid     Code = "token-invalid"      // 401: this token will never be accepted
	CodeForbidden        Code = "forbidden"          // 403
	CodeCrossOrigin      Code = "cross-origin"       // 403: a browser sent it from another origin
	CodeNotFound         Code = "not-found"          // 404: also for what belongs to another user
	CodeMethodNotAllowed Code = "method-not-allowed" // 405
	CodeNotAcceptable    Code = "not-acceptable"     // 406
	CodeConflict         Code = "conflict"           // 409
	CodeGone             Code = "gone"               // 410
	CodeVersionMismatch  Code = "version-mismatch"   // 412: somebody else changed it first
	CodeBodyTooLarge     Code = "body-too-large"     // 413
	CodeMediaType        Code = "unsupported-media"  // 415: send application/json
	CodeValidation       Code = "validation-failed"  // 422: the errors list says where
	CodeTooMany          Code = "too-many-requests"  // 429
	CodeInternal         Code = "internal"           // 500: ours; quote the request id
	CodeUnavailable      Code = "unavailable"        // 503: try again
	CodeResponseTooLarge Code = "response-too-large" // 500: the answer does not fit; ask for less
	CodeTimeout          Code = "timeout"            // 504
	codeOther            Code = "other"              // any other status
	problemType               = "application/problem+json"
	problemHeader             = "X-Tideline-Problem" // the code again, for logs and for clients that read no body
)

var codeOf = map[int]Code{400: CodeInvalidRequest, 401: CodeUnauthorized, 403: CodeForbidden, 404: CodeNotFound, 405: CodeMethodNotAllowed,
	406: CodeNotAcceptable, 409: CodeConflict, 410: CodeGone, 412: CodeVersionMismatch, 413: CodeBodyTooLarge, 415: CodeMediaType,
	422: CodeValidation, 429: CodeTooMany, 500: CodeInternal, 503: CodeUnavailable, 504: CodeTimeout}

// Limits of a problem document, so that no input is echoed at length.
const (
	// ErrorsMax is the most entries in a problem's list of errors.
	ErrorsMax = 20
	// EchoBytes is the longest message, location or value in an entry.
	EchoBytes = 200
)

// Problem is an error for a handler to return: the status, the stable code, and one sentence for a person (may be empty).
func Problem(status int, code Code, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{Type: TypePrefix + string(code), Title: http.StatusText(status), Status: status, Detail: detail}
}

// WriteProblem answers a plain handler's request with a problem document.
func WriteProblem(w http.ResponseWriter, r *http.Request, status int, code Code, detail string) {
	writeProblem(w, r, Problem(status, code, detail))
}

func writeProblem(w http.ResponseWriter, r *http.Request, p *huma.ErrorModel) {
	p.Instance = instance(RequestID(r.Context()))
	b, err := json.Marshal(p)
	if err != nil { // strings and numbers only: can't happen
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", problemType)
	h.Set(problemHeader, strings.TrimPrefix(p.Type, TypePrefix))
	if p.Status == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
		h.Set("Retry-After", "2")
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b) // the client is gone: nobody to tell
	}
}

func instance(requestID string) string { return "urn:tideline:request:" + requestID }

// finish completes every problem that huma or a handler made: type, instance, bounded echoes, and nothing of our own faults.
func (a *API) finish(ctx huma.Context, _ string, v any) (any, error) {
	p, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	out := *p
	if out.Type == "" {
		code, known := codeOf[out.Status]
		if !known {
			code = codeOther
		}
		out.Type = TypePrefix + string(code)
	}
	out.Instance = instance(RequestID(ctx.Context()))
	ctx.SetHeader(problemHeader, strings.TrimPrefix(out.Type, TypePrefix))
	if out.Status >= http.StatusInternalServerError {
		errs := make([]error, len(out.Errors))
		for i, e := range out.Errors {
			errs[i] = e
		}
		a.log.LogAttrs(ctx.Context(), slog.LevelError, "request failed", slog.String("operation", ctx.Operation().OperationID),
			slog.Int("status", out.Status), slog.Any("error", errors.Join(errs...)))
		out.Errors = nil
		if out.Status == http.StatusServiceUnavailable {
			ctx.SetHeader("Retry-After", "2")
		}
		return &out, nil
	}
	out.Detail = clip(out.Detail, EchoBytes)
	out.Errors = echo(out.Errors)
	return &out, nil
}

func echo(in []*huma.ErrorDetail) []*huma.ErrorDetail {
	if len(in) > ErrorsMax {
		in = in[:ErrorsMax]
	}
	out := make([]*huma.ErrorDetail, 0, len(in))
	for _, e := range in {
		if e == nil {
			continue
		}
		d := huma.ErrorDetail{Message: clip(e.Message, EchoBytes), Location: clip(e.Location, EchoBytes)}
		switch v := e.Value.(type) {
		case bool, float64, int, int64:
			d.Value = v
		case string:
			if len(v) <= EchoBytes {
				d.Value = strings.ToValidUTF8(v, "\uFFFD")
			}
		}
		out = append(out, &d)
	}
	return out
}

// clip shortens s to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}
