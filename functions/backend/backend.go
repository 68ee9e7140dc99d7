// Package backend opens what todos, tasks, outbox and broadcast work on, from their environment.
//
//	STAGE                 dev, prod, …: part of every key and channel in Redis (default dev)
//	REDIS_URL             see bus.Options
//	REDIS_IAM_USER        ElastiCache user; with REDIS_IAM_CACHE, and REDIS_IAM_SERVERLESS=true for a serverless cache
//	CHANNELS_FILE         JSON file of channel namespaces, as the nodes read it (default: those that ship)
//	TODO_TABLE            DynamoDB table of todos and tasks
//	TOKEN_SECRETS         see token.ParseSecrets; or
//	KEYS_TABLE            DynamoDB table of the key ring
//	ALLOWED_ORIGINS       further origins that may send state-changing requests, separated by commas
//	FILES_BUCKET          bucket of imports and exports; or
//	FILES_DIR             folder of the same, with FILES_SECRET (32 bytes or more, or @/path/of/a/file) that signs its links
//	FAILED_BUCKET         bucket of stream records that were given up
package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"tideline/functions/aws"
	"tideline/functions/outbox"
	failedfiles "tideline/functions/outbox/s3files"
	"tideline/functions/tasks"
	"tideline/functions/tasks/dirfiles"
	"tideline/functions/tasks/s3files"
	"tideline/shared/bus"
	busaws "tideline/shared/bus/aws"
	"tideline/shared/channel"
	"tideline/shared/todo/dynamo"
	"tideline/shared/token"
	keytable "tideline/shared/token/dynamo"
)

// poolSize: a sandbox serves one request at a time.
const poolSize = 2

// keysTimeout bounds the first read of the key table, which only warms up: without it requests are answered with 503 until it can be read.
const keysTimeout = 3 * time.Second

// Need is what a function can't do without, beside the bus.
type Need uint

// Needs of the functions.
const (
	Store    Need = 1 << iota // TODO_TABLE
	Verifier                  // TOKEN_SECRETS or KEYS_TABLE
	Files                     // FILES_BUCKET or FILES_DIR
)

// Backend is what was opened. What was not needed is nil.
type Backend struct {
	Bus        *bus.Bus
	Namespaces *channel.Table
	Store      *dynamo.Store
	Verifier   token.Verifier
	Files      tasks.Files
	Failures   outbox.Failures // nil without FAILED_BUCKET
	Origins    []string
}

// Close gives the bus up.
func (b *Backend) Close() error { return b.Bus.Close() }

// Open reads the environment, all mistakes in one error by the variables' names, and makes the clients. Nothing is connected to.
func Open(ctx context.Context, getenv func(string) string, needs Need, log *slog.Logger) (*Backend, error) {
	s := settings{getenv: getenv}
	b := &Backend{Namespaces: channel.Shipped()}
	s.check(needs)
	b.Origins = s.origins()
	if path := getenv("CHANNELS_FILE"); path != "" {
		var err error
		if b.Namespaces, err = channel.Load(path); err != nil {
			s.bad("CHANNELS_FILE: %w", err)
		}
	}
	if err := errors.Join(s.errs...); err != nil {
		return nil, err
	}
	c, err := aws.Config(ctx)
	if err != nil {
		return nil, err
	}
	db := dynamo.Client(c)
	o := bus.Options{URL: getenv("REDIS_URL"), Stage: or(getenv("STAGE"), "dev"), PoolSize: poolSize, Log: log}
	if user := getenv("REDIS_IAM_USER"); user != "" {
		o.Credentials = busaws.Credentials(busaws.Identity{User: user, Cache: getenv("REDIS_IAM_CACHE"),
			Serverless: getenv("REDIS_IAM_SERVERLESS") == "true", Region: c.Region}, c.Credentials, nil)
	}
	if needs&Store != 0 {
		b.Store = dynamo.New(db, getenv("TODO_TABLE"), nil)
	}
	if needs&Files != 0 {
		if b.Files, err = openFiles(getenv, func(bucket string) tasks.Files { return s3files.New(c, bucket) }); err != nil {
			return nil, err
		}
	}
	if bucket := getenv("FAILED_BUCKET"); bucket != "" {
		b.Failures = failedfiles.New(c, bucket)
	}
	if needs&Verifier != 0 {
		complain := func(err error) { log.Error("token keys", "error", err) }
		if b.Verifier, err = verifier(ctx, getenv, func(table string) token.PublicSource { return keytable.New(db, table) }, complain); err != nil {
			return nil, err
		}
	}
	if b.Bus, err = bus.Open(ctx, o); err != nil {
		return nil, fmt.Errorf("REDIS_URL, STAGE: %w", err)
	}
	return b, nil
}

func openFiles(getenv func(string) string, bucket func(string) tasks.Files) (tasks.Files, error) {
	if name := getenv("FILES_BUCKET"); name != "" {
		return bucket(name), nil
	}
	secret, err := filesSecret(getenv)
	if err != nil {
		return nil, fmt.Errorf("FILES_SECRET: %w", err)
	}
	d, err := dirfiles.New(getenv("FILES_DIR"), secret, nil)
	if err != nil {
		return nil, fmt.Errorf("FILES_DIR, FILES_SECRET: %w", err)
	}
	return d, nil
}

// filesSecret is FILES_SECRET, or what the file has that it names after an @.
func filesSecret(getenv func(string) string) ([]byte, error) {
	v := getenv("FILES_SECRET")
	path, inFile := strings.CutPrefix(v, "@")
	if !inFile {
		return []byte(v), nil
	}
	data, err := os.ReadFile(path)
	return bytes.TrimSpace(data), err
}

func verifier(ctx context.Context, getenv func(string) string, table func(string) token.PublicSource, complain func(error)) (token.Verifier, error) {
	if s := getenv("TOKEN_SECRETS"); s != "" {
		v, err := token.ParseSecrets(s, nil, complain)
		if err != nil {
			return nil, fmt.Errorf("TOKEN_SECRETS: %w", err)
		}
		return v, nil
	}
	keys := token.NewKeys(table(getenv("KEYS_TABLE")), nil, complain)
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	if err := keys.Load(ctx); err != nil {
		complain(err)
	}
	return keys.Access(), nil
}

// settings collects what is wrong.
type settings struct {
	getenv func(string) string
	errs   []error
}

func (s *settings) bad(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

// exactly wants one of the variables.
func (s *settings) exactly(names ...string) {
	n := 0
	for _, name := range names {
		if s.getenv(name) != "" {
			n++
		}
	}
	switch {
	case len(names) == 1 && n == 0:
		s.bad("%s: missing", names[0])
	case n != 1:
		s.bad("%s: set exactly one of them", strings.Join(names, ", "))
	}
}

func (s *settings) check(needs Need) {
	s.exactly("REDIS_URL")
	if needs&Store != 0 {
		s.exactly("TODO_TABLE")
	}
	if needs&Verifier != 0 {
		s.exactly("TOKEN_SECRETS", "KEYS_TABLE")
	}
	if needs&Files != 0 {
		s.exactly("FILES_BUCKET", "FILES_DIR")
		if s.getenv("FILES_DIR") != "" {
			if secret, err := filesSecret(s.getenv); err != nil {
				s.bad("FILES_SECRET: %w", err)
			} else if len(secret) < dirfiles.MinSecretBytes {
				s.bad("FILES_SECRET: at least %d bytes are needed with FILES_DIR, or @/path/of/a/file that has them", dirfiles.MinSecretBytes)
			}
		}
	}
	if (s.getenv("REDIS_IAM_USER") == "") != (s.getenv("REDIS_IAM_CACHE") == "") {
		s.bad("REDIS_IAM_USER, REDIS_IAM_CACHE: set both or none")
	}
	if v := s.getenv("REDIS_IAM_SERVERLESS"); v != "" && v != "true" && v != "false" {
		s.bad("REDIS_IAM_SERVERLESS: %q is neither true nor false", v)
	}
}

func (s *settings) origins() (out []string) {
	for o := range strings.SplitSeq(s.getenv("ALLOWED_ORIGINS"), ",") {
		if o = strings.TrimSpace(o); o == "" {
			continue
		}
		if u, err := url.Parse(o); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			s.bad("ALLOWED_ORIGINS: %q is not scheme://host[:port]", o)
		}
		out = append(out, o)
	}
	return out
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
