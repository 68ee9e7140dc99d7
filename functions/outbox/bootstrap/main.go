// Command bootstrap is the outbox function: in Lambda, or on PORT elsewhere. Package backend lists its settings.
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
	"tideline/functions/outbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "outbox:", err)
		os.Exit(1)
	}
}

// run opens what the settings name, serves, and closes in the opposite order.
func run(ctx context.Context, getenv func(string) string) (err error) {
	p, err := lambdahttp.Start("outbox", getenv)
	if err != nil {
		return err
	}
	b, err := backend.Open(ctx, getenv, backend.Store, p.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	h, err := outbox.NewHandler(outbox.Options{Publisher: b.Bus, Store: b.Store, Failures: b.Failures, Namespaces: b.Namespaces, Log: p.Log, Meter: p.Meter})
	if err != nil {
		return err
	}
	return p.Run(ctx, lambdahttp.Function{Event: h.Handle})
}
