package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"

	"tideline/local/balancer"
	"tideline/shared/trace/otlp"
)

const (
	defaultPort = "8080"
	// maxNodes is more than a laptop has use for.
	maxNodes = 16
)

// settings of the command, checked.
type settings struct {
	mode mode

	listen   []string // addresses of the front door
	port     string
	nodes    int
	sticky   bool
	redisURL string // empty: embedded
	stage    string
	secrets  string // TOKEN_SECRETS; empty: kept in the data folder
	apiKeys  string // API_KEYS; empty: kept in the data folder
	data     string
	docker   dockerSettings
	dev      bool
	level    slog.Level
	tracing  otlp.Settings
	json     bool

	targets []balancer.Target // balance
	api     *url.URL          // balance
}

// dockerSettings name the Docker Engine whose containers operators may watch; host is empty for none.
type dockerSettings struct{ host, certs string }

type mode int

const (
	wholeSystem   mode = iota
	onlyBalancer       // -balance
	onlyFunctions      // -functions
)

const usage = `Usage: local [-dev] | local -balance URL,URL… [-api URL] | local -functions

Without arguments: all of Tideline in one process, at http://localhost:8080.

  -dev                the page comes from a development server that reloads it as you type
  -balance URL,URL…   the load balancer alone, in front of nodes that run elsewhere. Each URL is a node's public one; with
                      URL=HEALTH-URL its health is asked there (http://127.0.0.1:9001/readyz), else with GET / on the URL itself
  -api URL            with -balance: where /api/* goes
  -functions          the functions alone

Environment:

  PORT          port to listen on, or host:port (default: 8080, on this machine only)
  NODES         how many nodes, 1 to 16 (default: 2)
  STICKY        on or off: does the load balancer keep a visitor on its node by a cookie? (default: on)
  REDIS_URL     a Redis to use (default: an embedded one; with -functions it is required)
  STAGE         prefix of the keys in Redis (default: dev)
  TOKEN_SECRETS secrets of tokens, comma separated (default: made at the first start, kept in DATA_DIR)
  API_KEYS      keys of the nodes' server API, comma separated (default: made at the first start, kept in DATA_DIR)
  DATA_DIR      where todos and secrets are kept (default: .tideline)
  DOCKER_HOST   Docker Engine whose containers operators may watch, unix:///var/run/docker.sock or tcp://host:port (default: none)
  DOCKER_CERT_PATH  folder with ca.pem, cert.pem and key.pem, for a DOCKER_HOST of tcp:// with TLS
  LOG_LEVEL     debug, info, warn or error (default: info)
  LOG_FORMAT    text or json (default: text)
  OTEL_EXPORTER_OTLP_ENDPOINT
                collector that spans are sent to, by OTLP over HTTP (default: none are recorded)

Ctrl-C stops everything within five seconds; a second one ends at once.
`

// parse reads arguments and environment; the error names everything that is wrong.
func parse(args []string, getenv func(string) string) (settings, error) {
	s := settings{redisURL: getenv("REDIS_URL"), stage: cmp.Or(getenv("STAGE"), "dev"), secrets: getenv("TOKEN_SECRETS"), apiKeys: getenv("API_KEYS"),
		data: cmp.Or(getenv("DATA_DIR"), ".tideline"), docker: dockerSettings{getenv("DOCKER_HOST"), getenv("DOCKER_CERT_PATH")}}
	flags := flag.NewFlagSet("local", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	balance := flags.String("balance", "", "")
	api := flags.String("api", "", "")
	functions := flags.Bool("functions", false, "")
	flags.BoolVar(&s.dev, "dev", false, "")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	var errs []error
	wrong := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if flags.NArg() > 0 {
		wrong("unexpected argument %q", flags.Arg(0))
	}
	switch {
	case *balance != "" && (*functions || s.dev), *functions && s.dev:
		wrong("-balance, -functions and -dev exclude each other")
	case *balance != "":
		s.mode = onlyBalancer
		var err error
		if s.targets, err = parseTargets(*balance); err != nil {
			wrong("-balance: %w", err)
		}
	case *functions:
		s.mode = onlyFunctions
		if s.redisURL == "" {
			wrong("REDIS_URL: missing; -functions publishes to the nodes through it")
		}
	}
	if *api != "" {
		var err error
		if s.api, err = parseURL(*api); err != nil || s.mode != onlyBalancer {
			wrong("-api: needs a URL such as http://127.0.0.1:8090, and -balance")
		}
	}
	s.environment(getenv, wrong)
	return s, errors.Join(errs...)
}

func (s *settings) environment(getenv func(string) string, wrong func(string, ...any)) {
	host, port, err := "", cmp.Or(getenv("PORT"), defaultPort), error(nil)
	if strings.Contains(port, ":") {
		host, port, err = net.SplitHostPort(port)
	}
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
		wrong("PORT: %q is neither a port from 0 to 65535 nor host:port", getenv("PORT"))
	} else {
		s.port = strconv.FormatUint(n, 10)
		s.listen = []string{net.JoinHostPort(cmp.Or(host, "127.0.0.1"), s.port)}
		if host == "" && n != 0 {
			s.listen = append(s.listen, net.JoinHostPort("::1", s.port)) // what browsers try first for localhost
		}
	}
	if s.nodes, err = strconv.Atoi(cmp.Or(getenv("NODES"), "2")); err != nil || s.nodes < 1 || s.nodes > maxNodes {
		wrong("NODES: %q is not a number from 1 to %d", getenv("NODES"), maxNodes)
	}
	s.sticky = choice(getenv, wrong, "STICKY", "on", "off") == "on"
	s.json = choice(getenv, wrong, "LOG_FORMAT", "text", "json") == "json"
	if s.tracing, err = otlp.Parse(getenv); err != nil {
		wrong("%w", err)
	}
	level := choice(getenv, wrong, "LOG_LEVEL", "info", "debug", "warn", "error")
	if err := s.level.UnmarshalText([]byte(level)); err != nil {
		s.level = slog.LevelInfo // choice has reported it
	}
}

// choice answers the variable's value, which must be one of allowed; the first is the default.
func choice(getenv func(string) string, wrong func(string, ...any), name string, allowed ...string) string {
	v := cmp.Or(getenv(name), allowed[0])
	for _, a := range allowed {
		if strings.EqualFold(v, a) {
			return a
		}
	}
	wrong("%s: %q is none of %s", name, v, strings.Join(allowed, ", "))
	return ""
}

func parseTargets(list string) ([]balancer.Target, error) {
	var targets []balancer.Target
	for i, part := range strings.Split(list, ",") {
		public, health, given := strings.Cut(strings.TrimSpace(part), "=")
		t := balancer.Target{Name: fmt.Sprintf("target-%d", i+1)}
		var err error
		if t.URL, err = parseURL(public); err != nil {
			return nil, err
		}
		t.Health = t.URL.JoinPath("/")
		if given {
			if t.Health, err = parseURL(health); err != nil {
				return nil, err
			}
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q is not a URL such as http://127.0.0.1:8001", raw)
	}
	return u, nil
}
