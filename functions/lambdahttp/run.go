package lambdahttp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambda/messages"

	"tideline/functions/api"
	"tideline/functions/meter"
	"tideline/shared/limit"
	"tideline/shared/metric"
)

// InvokePath takes events by POST when the function runs on a port: the path of Lambda's own API, so that its clients work. Nobody is
// authenticated there, as in Lambda's own emulator: a function that also serves HTTP has it on the private port only.
const InvokePath = "/2015-03-31/functions/function/invocations"

// Times of the server outside Lambda.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second
	// stopTimeout is how long running requests may take when the process is told to stop.
	stopTimeout = 10 * time.Second
	// invokeBytes is the largest event that InvokePath takes: Lambda's own limit for synchronous invocations.
	invokeBytes = 6 << 20
)

// Process is what a function's command gets from its surroundings: where it logs, and where it measures.
type Process struct {
	Name   string
	Log    *slog.Logger
	Meter  api.Meter
	getenv func(string) string
	done   func() error
	scrape http.Handler
}

// Start reads LOG_LEVEL and finds out whether this is Lambda. Logs are JSON on standard output; in Lambda so are measurements, in the
// CloudWatch namespace of STAGE (default dev).
func Start(name string, getenv func(string) string) (*Process, error) {
	return start(name, getenv, os.Stdout)
}

func start(name string, getenv func(string) string, out io.Writer) (*Process, error) {
	level := slog.LevelInfo
	if s := getenv("LOG_LEVEL"); s != "" {
		if err := level.UnmarshalText([]byte(s)); err != nil {
			return nil, fmt.Errorf("LOG_LEVEL: %q is none of debug, info, warn, error", s)
		}
	}
	handler := slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})
	p := &Process{Name: name, getenv: getenv, Log: slog.New(api.LogHandler(handler)).With("function", name)}
	if inLambda(getenv) {
		emf := meter.NewEMF(out, metric.Namespace(cmp.Or(getenv("STAGE"), "dev")), name, nil)
		p.Meter, p.done = emf, emf.Flush
		return p, nil
	}
	prom := meter.NewPrometheus(name, p.Log)
	p.Meter, p.scrape = prom, prom.Handler()
	return p, nil
}

func inLambda(getenv func(string) string) bool { return getenv("AWS_LAMBDA_RUNTIME_API") != "" }

// Run serves until ctx ends. In Lambda it talks to the runtime API, and does not return: when that API goes away the process exits. Elsewhere it
// listens on PORT (default 8080), and on PRIVATE_PORT, if that is set, with /metrics, /healthz and InvokePath.
func (p *Process) Run(ctx context.Context, f Function) error {
	if f.Log == nil {
		f.Log = p.Log
	}
	if f.Done == nil {
		f.Done = p.done
	}
	if inLambda(p.getenv) {
		lambda.StartWithOptions(&f, lambda.WithContext(ctx))
		return nil
	}
	public, err := listen(p.getenv, "PORT", "8080")
	if err != nil {
		return err
	}
	servers := []*http.Server{server(f.public())}
	listeners := []net.Listener{public}
	if p.getenv("PRIVATE_PORT") != "" {
		private, err := listen(p.getenv, "PRIVATE_PORT", "")
		if err != nil {
			return errors.Join(err, public.Close())
		}
		servers, listeners = append(servers, server(p.private(&f))), append(listeners, private)
	}
	p.Log.Info("listening", "address", public.Addr().String())
	return serve(ctx, servers, listeners)
}

func listen(getenv func(string) string, name, fallback string) (net.Listener, error) {
	port := getenv(name)
	if port == "" {
		port = fallback
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return nil, fmt.Errorf("%s: %q is not a port", name, port)
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

func server(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: limit.HTTPIdleTimeout}
}

// serve starts, cancels and waits: all servers stop when ctx ends or one of them fails.
func serve(ctx context.Context, servers []*http.Server, listeners []net.Listener) error {
	failed := make(chan error, len(servers))
	for i, s := range servers {
		go func() { failed <- s.Serve(listeners[i]) }()
	}
	var errs []error
	running := len(servers)
	select {
	case <-ctx.Done():
	case err := <-failed:
		running--
		errs = append(errs, err)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, s := range servers {
		if err := s.Shutdown(stop); err != nil {
			errs = append(errs, fmt.Errorf("stop: %w", err), s.Close())
		}
	}
	for range running {
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// public is the function on a port: its HTTP handler, or its events.
func (f *Function) public() http.Handler {
	if f.HTTP != nil {
		return f.HTTP
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+InvokePath, f.post)
	return mux
}

// post invokes the function with the body as its event. A failed invocation is 200 with X-Amz-Function-Error, as in Lambda.
func (f *Function) post(w http.ResponseWriter, r *http.Request) {
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, invokeBytes))
	if err != nil {
		api.WriteProblem(w, r, http.StatusRequestEntityTooLarge, api.CodeBodyTooLarge, "An event has at most 6 MiB.")
		return
	}
	if !json.Valid(payload) {
		api.WriteProblem(w, r, http.StatusBadRequest, api.CodeInvalidRequest, "An event is JSON.")
		return
	}
	out, err := f.Invoke(r.Context(), payload)
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.Header().Set("X-Amz-Function-Error", "Unhandled")
		out = marshal(messages.InvokeResponse_Error{Message: err.Error(), Type: "Error"})
	}
	_, _ = w.Write(out)
}

func (p *Process) private(f *Function) http.Handler {
	mux := http.NewServeMux()
	if f.Event != nil {
		mux.HandleFunc("POST "+InvokePath, f.post)
	}
	mux.Handle("GET /metrics", p.scrape)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	return mux
}
