// Command bootstrap is the broadcast function: in Lambda, or on PORT elsewhere. Package backend lists its settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"tideline/functions/backend"
	"tideline/functions/broadcast"
	"tideline/functions/lambdahttp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "broadcast:", err)
		os.Exit(1)
	}
}

// run opens what the settings name, serves, and closes in the opposite order. In Lambda the function URL's IAM decides who may publish; on a
// port it is the bearer token of an operator.
func run(ctx context.Context, getenv func(string) string) (err error) {
	p, err := lambdahttp.Start("broadcast", getenv)
	if err != nil {
		return err
	}
	inLambda := getenv("AWS_LAMBDA_RUNTIME_API") != ""
	var needs backend.Need
	if !inLambda {
		needs = backend.Verifier
	}
	b, err := backend.Open(ctx, getenv, needs, p.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	c, err := broadcast.New(broadcast.Options{Publisher: b.Bus, Namespaces: b.Namespaces, Log: p.Log, Meter: p.Meter})
	if err != nil {
		return err
	}
	h, err := c.HTTP(broadcast.HTTPOptions{Authorized: inLambda, Verifier: b.Verifier})
	if err != nil {
		return err
	}
	return p.Run(ctx, lambdahttp.Function{HTTP: h, Event: c.Handle})
}
