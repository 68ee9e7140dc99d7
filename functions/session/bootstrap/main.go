// Command bootstrap is the session function: in Lambda, or on PORT elsewhere.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"tideline/functions/aws"
	"tideline/functions/lambdahttp"
	"tideline/functions/session"
	"tideline/functions/session/bolt"
	"tideline/functions/session/dynamo"
	"tideline/shared/token"
	keytable "tideline/shared/token/dynamo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "session:", err)
		os.Exit(1)
	}
}

// run opens what the settings name, serves, and closes in the opposite order.
func run(ctx context.Context, getenv func(string) string) (err error) {
	p, err1 := lambdahttp.Start("session", getenv)
	set, err2 := session.ReadSettings(getenv)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	var db *dynamodb.Client
	if set.Table != "" || set.KeysTable != "" {
		c, err := aws.Config(ctx)
		if err != nil {
			return err
		}
		db = dynamodb.NewFromConfig(c)
	}
	o := session.Options{Guests: set.Guests, PublicScheme: set.PublicScheme, TrustedOrigins: set.TrustedOrigins, Log: p.Log, Meter: p.Meter}
	if set.DB != "" {
		f, openErr := bolt.Open(set.DB)
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		o.Store = f
	} else {
		o.Store = dynamo.New(db, set.Table)
	}
	if err := keys(ctx, p, set, db, &o); err != nil {
		return err
	}
	s, err := session.New(o)
	if err != nil {
		return err
	}
	return p.Run(ctx, lambdahttp.Function{HTTP: s})
}

// keysTimeout bounds the first read of the key table, which only warms up: a start without it is no failure, requests answer 503.
const keysTimeout = 3 * time.Second

// keys chooses what signs: secrets, or the key rings; and whose id tokens are accepted.
func keys(ctx context.Context, p *lambdahttp.Process, set session.Settings, db *dynamodb.Client, o *session.Options) error {
	complain := func(err error) { p.Log.Error("token keys", "error", err) }
	if set.Secrets != "" {
		secrets, err := token.ParseSecrets(set.Secrets, nil, complain)
		if err != nil {
			return fmt.Errorf("TOKEN_SECRETS: %w", err)
		}
		o.Access, o.Sessions = secrets, secrets.For(token.AudienceSession)
	}
	if set.KeysTable == "" {
		return nil
	}
	table := keytable.New(db, set.KeysTable)
	public := token.NewKeys(table, nil, complain)
	if set.Secrets == "" {
		o.Access = token.Pair{Signer: token.NewRingSigner(table, token.RingAccess, nil, complain), Verifier: public.Access()}
		o.Sessions = token.Pair{Signer: token.NewRingSigner(table, token.RingSession, nil, complain), Verifier: public.Sessions()}
	}
	if set.Issuers != "" {
		list, err := token.ParseIssuers(set.Issuers)
		if err != nil {
			return fmt.Errorf("OIDC_ISSUERS: %w", err)
		}
		o.SignIn = public.Issuers(list)
	}
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	if err := public.Load(ctx); err != nil {
		complain(err)
	}
	return nil
}
