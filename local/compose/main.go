// Command compose is what the containers of compose.yaml need beside Tideline's own binaries: their tables and secrets, the table's stream, health checks.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tideline/functions/session"
	"tideline/local/compose/aws"
	"tideline/shared/channel"
	"tideline/shared/token"
)

const usage = `Usage: compose setup            make the tables of DynamoDB Local and the secrets in SECRETS_DIR, unless they are there
       compose carry            carry the todo table's stream to the outbox and new tasks to their worker
       compose operator URL     print a link that signs in as operator, once, within a minute
       compose health URL       exit 0 when the URL answers 2xx
       compose own PATH UID     give an empty volume to a user (as root, once)
`

const (
	// healthTimeout is under the timeout of compose.yaml's health checks.
	healthTimeout = 3 * time.Second
	secretBytes   = 32
	setupTimeout  = 90 * time.Second
	setupRetry    = time.Second
)

// Names of the files in SECRETS_DIR.
const (
	tokenFile = "token"
	filesFile = "files"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "compose:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer) error {
	log := slog.New(slog.NewJSONHandler(stdout, nil))
	switch verb, rest := verbOf(args); {
	case verb == "setup" && len(rest) == 0:
		return setup(ctx, getenv)
	case verb == "carry" && len(rest) == 0:
		return carry(ctx, getenv, log)
	case verb == "operator" && len(rest) == 1:
		return operator(ctx, getenv, rest[0], stdout)
	case verb == "health" && len(rest) == 1:
		return health(ctx, rest[0])
	case verb == "own" && len(rest) == 2:
		return own(rest[0], rest[1])
	}
	return errors.New("not understood\n" + strings.TrimSpace(usage))
}

func verbOf(args []string) (verb string, rest []string) {
	if len(args) == 0 {
		return "", nil
	}
	return args[0], args[1:]
}

// wants reads variables that must be set; the error names all that are not.
func wants(getenv func(string) string, names ...string) (map[string]string, error) {
	got := map[string]string{}
	var errs []error
	for _, name := range names {
		if got[name] = getenv(name); got[name] == "" {
			errs = append(errs, fmt.Errorf("%s: missing", name))
		}
	}
	return got, errors.Join(errs...)
}

func setup(ctx context.Context, getenv func(string) string) error {
	env, err := wants(getenv, "SECRETS_DIR", "TODO_TABLE", "SESSION_TABLE")
	if err != nil {
		return err
	}
	for _, name := range []string{tokenFile, filesFile} {
		if err := makeSecret(filepath.Join(env["SECRETS_DIR"], name)); err != nil {
			return err
		}
	}
	// DynamoDB Local may still be starting.
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	for {
		err := aws.Setup(ctx, env["TODO_TABLE"], env["SESSION_TABLE"])
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(setupRetry):
		}
	}
}

// makeSecret writes a random secret, unless there is one.
func makeSecret(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("SECRETS_DIR: %w", err)
	}
	secret := make([]byte, secretBytes)
	rand.Read(secret) // never fails
	_, err = io.WriteString(f, hex.EncodeToString(secret))
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("SECRETS_DIR: %w", err), os.Remove(path))
	}
	return nil
}

func carry(ctx context.Context, getenv func(string) string, log *slog.Logger) error {
	env, err := wants(getenv, "TODO_TABLE", "OUTBOX_URL", "WORKER_URL")
	if err != nil {
		return err
	}
	return aws.Carry(ctx, env["TODO_TABLE"], env["OUTBOX_URL"], env["WORKER_URL"], log)
}

// operator makes a link with the session function's own code and table.
func operator(ctx context.Context, getenv func(string) string, site string, stdout io.Writer) error {
	env, err := wants(getenv, "TOKEN_SECRETS", "SESSION_TABLE")
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	secrets, err := token.ParseSecrets(env["TOKEN_SECRETS"], nil, nil)
	if err != nil {
		return fmt.Errorf("TOKEN_SECRETS: %w", err)
	}
	links, err := aws.Links(ctx, env["SESSION_TABLE"])
	if err != nil {
		return err
	}
	s, err := session.New(session.Options{Sessions: secrets.For(token.AudienceSession), Access: secrets, Store: links, Guests: true, PublicScheme: "http", Log: log})
	if err != nil {
		return err
	}
	path, until, err := s.MakeLink(ctx, "operator", []string{channel.RoleOperator})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s%s (until %s)\n", strings.TrimSuffix(site, "/"), path, until.Format(time.TimeOnly))
	return err
}

func health(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return errors.New(res.Status)
	}
	return nil
}

func own(path, uid string) error {
	id, err := strconv.Atoi(uid)
	if err != nil || id <= 0 {
		return fmt.Errorf("%q is not the number of a user", uid)
	}
	return os.Chown(path, id, id)
}
