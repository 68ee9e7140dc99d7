// Package serverapi lets backends in any language publish, ask and give orders over HTTP, by the public Centrifugo server API.
//
// It is served on a node's private port to whoever has a key, and any node will do: publications go by the bus, orders by a survey of the fleet.
// What it can't do it refuses, with an error that names the field; docs/server-api.md lists all of it. Redis slow or gone: every call ends within
// RequestBudget with error 100. A body that comes too slowly, or is too long, ends its connection.
package serverapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"tideline/node/conn"
	"tideline/shared/bus"
	"tideline/shared/limit"
)

const (
	// RequestBudget is all the time that a request may take from when it has been read; commands of a batch that have not begun by then fail.
	// limit.CommandBudget < RequestBudget < the 10 s after which the public libraries give up.
	RequestBudget = 8 * time.Second
	// BodyTimeout is how long a request's body may take to come, and its answer to go.
	BodyTimeout = 10 * time.Second
	// BodyBytes is the longest body of a request. HTTP 413 past it.
	BodyBytes = 4 << 20
	// RequestsAtOnce is how many requests a node reads and works on together; the others wait for at most limit.CommandBudget (error 111).
	RequestsAtOnce = 64
)

// Options of New; all are required.
type Options struct {
	Sockets *conn.Service
	Bus     *bus.Bus
	Keys    *Keys
	Log     *slog.Logger
}

// API serves POST /api/{method}, and POST /api with one command a line. It is safe for concurrent use.
type API struct {
	sockets *conn.Service
	bus     *bus.Bus
	keys    *Keys
	log     *slog.Logger
	methods map[string]method
	places  chan struct{} // of RequestsAtOnce
	strange rate.Sometimes

	bodyTimeout time.Duration // BodyTimeout but in tests
}

// New makes an API.
func New(o Options) *API {
	return &API{sockets: o.Sockets, bus: o.Bus, keys: o.Keys, log: o.Log, methods: methodsByName(), places: make(chan struct{}, RequestsAtOnce),
		strange: rate.Sometimes{Interval: 10 * time.Second}, bodyTimeout: BodyTimeout}
}

// Register puts the API on a mux.
func (a *API) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/{method}", func(w http.ResponseWriter, r *http.Request) {
		a.serve(w, r, func(ctx context.Context, body []byte) (any, error) { return a.one(ctx, r.PathValue("method"), body) })
	})
	mux.HandleFunc("POST /api", func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, a.lines) })
}

// one runs a method that stands in the path.
func (a *API) one(ctx context.Context, name string, body []byte) (any, error) {
	m, ok := a.methods[name]
	if !ok {
		return nil, errNotFound
	}
	result, err := m(ctx, a, body)
	if _, whole := result.(batchReply); whole || err != nil {
		return result, err
	}
	return reply{Result: result}, nil
}

// serve lets a request in, reads it, and writes what answer makes of it.
func (a *API) serve(w http.ResponseWriter, r *http.Request, answer func(ctx context.Context, body []byte) (any, error)) {
	// Every connection of net/http supports deadlines; without them the request still works.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(a.bodyTimeout))
	_ = control.SetWriteDeadline(time.Now().Add(a.bodyTimeout + RequestBudget + limit.CommandBudget + BodyTimeout))
	defer func() {
		_ = control.Flush() // while the deadline holds: net/http would write the end of the answer without one
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Time{})
	}()
	w.Header().Set("Cache-Control", "no-store")
	transport := strings.EqualFold(r.Header.Get("X-Centrifugo-Error-Mode"), "transport")
	if !a.keys.Accept(keyOf(r)) {
		a.strange.Do(func() { a.log.Warn("server API: request without a key that is accepted", "remote", r.RemoteAddr) })
		w.Header().Set("WWW-Authenticate", "apikey")
		write(w, http.StatusUnauthorized, failure(errUnauthorized, transport))
		return
	}
	release, err := a.begin(r.Context())
	if err != nil {
		fail(w, err, transport)
		return
	}
	defer release()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, BodyBytes))
	if err != nil {
		a.unread(w, err, transport)
		return
	}
	result, err := answer(r.Context(), body)
	if err != nil {
		a.note(err)
		fail(w, err, transport)
		return
	}
	write(w, http.StatusOK, result)
}

// begin takes one of the RequestsAtOnce places.
func (a *API) begin(ctx context.Context) (release func(), err error) {
	release = func() { <-a.places }
	select {
	case a.places <- struct{}{}:
		return release, nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	select {
	case a.places <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, errTooManyRequests
	}
}

// keyOf is the key that a request brings. A query parameter is not looked at: addresses end up in logs.
func keyOf(r *http.Request) string {
	if k := r.Header.Get("X-API-Key"); k != "" {
		return k
	}
	scheme, k, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "apikey") {
		return strings.TrimSpace(k)
	}
	return ""
}

// unread answers a body that could not be read; the connection can't go on.
func (a *API) unread(w http.ResponseWriter, err error, transport bool) {
	w.Header().Set("Connection", "close")
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		write(w, http.StatusRequestEntityTooLarge, failure(because(errLimitExceeded, "body: at most %d bytes", BodyBytes), transport))
	case errors.Is(err, os.ErrDeadlineExceeded):
		write(w, http.StatusRequestTimeout, failure(because(errBadRequest, "body: not complete after %v", a.bodyTimeout), transport))
	default:
		write(w, http.StatusBadRequest, failure(because(errBadRequest, "body: not complete"), transport))
	}
}

// fail answers an error: in the body of a 200, or with a status of its own where the request asks for that.
func fail(w http.ResponseWriter, err error, transport bool) {
	e := errorOf(err)
	switch {
	case errors.Is(err, errNotFound), transport:
		write(w, e.status(), failure(e, transport))
	default:
		write(w, http.StatusOK, failure(e, transport))
	}
}

func failure(e *Error, transport bool) any {
	if transport {
		return e
	}
	return reply{Error: e}
}

// write sends an answer. What a client doesn't take is its own loss.
func write(w http.ResponseWriter, status int, answer any) {
	var b bytes.Buffer
	lines, many := answer.([]any)
	if !many {
		lines = []any{answer}
	}
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // data goes back as it came
	for _, line := range lines {
		if err := e.Encode(line); err != nil {
			b.Reset()
			status = http.StatusInternalServerError
			_ = e.Encode(reply{Error: errInternal})
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// note logs what is not the caller's doing.
func (a *API) note(err error) {
	if errorOf(err).Code != errInternal.Code {
		return
	}
	level := slog.LevelWarn
	if errors.Is(err, bus.ErrUnavailable) || errors.Is(err, context.Canceled) {
		level = slog.LevelDebug // the bus says so itself, once
	}
	a.log.Log(context.Background(), level, "server API: request failed", "error", err)
}
