// Command bootstrap is the keys function: in Lambda on a schedule, or elsewhere on PORT, where each POST of {} is a run.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"tideline/functions/aws"
	"tideline/functions/keys"
	"tideline/functions/lambdahttp"
	"tideline/shared/token"
	keytable "tideline/shared/token/dynamo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "keys:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	p, err := lambdahttp.Start("keys", getenv)
	errs := []error{err}
	table := getenv("KEYS_TABLE")
	if table == "" {
		errs = append(errs, errors.New("KEYS_TABLE: missing"))
	}
	var issuers []token.Foreign
	if s := getenv("OIDC_ISSUERS"); s != "" {
		if issuers, err = token.ParseIssuers(s); err != nil {
			errs = append(errs, fmt.Errorf("OIDC_ISSUERS: %w", err))
		}
	}
	c, err := aws.Config(ctx)
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	store := keytable.New(dynamodb.NewFromConfig(c), table)
	h := &keys.Handler{Rotation: keys.NewRotation(store, nil, p.Log), Fetcher: keys.NewFetcher(store, issuers, nil, nil, p.Log)}
	return p.Run(ctx, lambdahttp.Function{Event: h.Event})
}
