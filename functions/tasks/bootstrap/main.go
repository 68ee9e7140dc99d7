// Command bootstrap is the tasks function: in Lambda, or on PORT elsewhere. Package backend lists its settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"tideline/functions/backend"
	"tideline/functions/lambdahttp"
	"tideline/functions/tasks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "tasks:", err)
		os.Exit(1)
	}
}

// run opens what the settings name, serves, and closes in the opposite order. One binary is both the API, which the load balancer calls, and the
// worker, which the queue calls; only the API needs to verify tokens.
func run(ctx context.Context, getenv func(string) string) (err error) {
	p, err := lambdahttp.Start("tasks", getenv)
	if err != nil {
		return err
	}
	needs := backend.Store | backend.Files
	isAPI := getenv("TOKEN_SECRETS") != "" || getenv("KEYS_TABLE") != ""
	if isAPI {
		needs |= backend.Verifier
	}
	b, err := backend.Open(ctx, getenv, needs, p.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	w, err := tasks.NewWorker(tasks.WorkerOptions{Store: b.Store, Files: b.Files, Publisher: b.Bus, Namespaces: b.Namespaces, Log: p.Log, Meter: p.Meter})
	if err != nil {
		return err
	}
	f := lambdahttp.Function{Event: w.Handle}
	if isAPI {
		f.HTTP, err = tasks.New(tasks.Options{Store: b.Store, Files: b.Files, Publisher: b.Bus, Verifier: b.Verifier, Namespaces: b.Namespaces, TrustedOrigins: b.Origins,
			Log: p.Log, Meter: p.Meter})
		if err != nil {
			return err
		}
	}
	return p.Run(ctx, f)
}
