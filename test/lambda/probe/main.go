// Command probe is a function that does what its event says, for the harness's own tests and those of functions/lambdahttp.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"tideline/functions/api"
	"tideline/functions/lambdahttp"
	"tideline/shared/metric"
)

func main() {
	if os.Getenv("PROBE_EXIT") != "" {
		fmt.Println("told to end")
		os.Exit(3)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := lambdahttp.Start("probe", os.Getenv)
	if err == nil {
		err = p.Run(ctx, lambdahttp.Function{HTTP: web(), Event: func(ctx context.Context, raw json.RawMessage) (any, error) { return event(ctx, p, raw) }})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var invocations int

func event(ctx context.Context, p *lambdahttp.Process, raw json.RawMessage) (any, error) {
	invocations++
	var e struct{ Do, Text string }
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, err
	}
	p.Meter.Add(metric.TasksCreated, 1, "kind", "probe")
	switch e.Do {
	case "wait": // as a handler that minds its deadline
		<-ctx.Done()
		return nil, ctx.Err()
	case "hang": // as one that does not
		select {}
	case "panic":
		panic("told to panic")
	case "exit":
		os.Exit(3)
	case "fail":
		return nil, errors.New("told to fail")
	}
	p.Log.InfoContext(ctx, "echo")
	return map[string]any{"text": e.Text, "invocation": invocations, "id": api.RequestID(ctx)}, nil
}

// web serves what a round trip must keep.
func web() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(strings.Repeat("x", lambdahttp.ResponseBytes)))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "path": r.URL.Path, "query": r.URL.Query(), "remote": r.RemoteAddr, "host": r.Host})
	})
	return mux
}
