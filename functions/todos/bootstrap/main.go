// Command bootstrap is the todos function: in Lambda, or on PORT elsewhere. Package backend lists its settings.
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
	"tideline/functions/todos"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "todos:", err)
		os.Exit(1)
	}
}

// run opens what the settings name, serves, and closes in the opposite order.
func run(ctx context.Context, getenv func(string) string) (err error) {
	p, err := lambdahttp.Start("todos", getenv)
	if err != nil {
		return err
	}
	b, err := backend.Open(ctx, getenv, backend.Store|backend.Verifier, p.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	h, err := todos.New(todos.Options{Store: b.Store, Publisher: b.Bus, Verifier: b.Verifier, Namespaces: b.Namespaces, TrustedOrigins: b.Origins, Log: p.Log, Meter: p.Meter})
	if err != nil {
		return err
	}
	return p.Run(ctx, lambdahttp.Function{HTTP: h})
}
