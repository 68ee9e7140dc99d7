package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"

	"github.com/alicebob/miniredis/v2"
	"golang.org/x/sync/errgroup"

	"tideline/local/balancer"
	"tideline/node/server"
	"tideline/node/stream/docker"
)

// everything is the whole system. Its parts end in the reverse of the order in which a request passes them: nodes first (they close
// their clients), then the front door, the functions, the store, and Redis last.
type everything struct {
	settings  settings
	log       *slog.Logger
	redis     *miniredis.Miniredis // nil: REDIS_URL
	functions *functions
	nodes     []*server.Node
	private   string // address of the first node's private port
	apiKeys   string // file of the server API's keys; empty: API_KEYS
	api       *door
	balancer  *balancer.Balancer
	page      *devPage // nil: the nodes' embedded page
	front     *door
}

func runEverything(ctx context.Context, s settings, front *door, log *slog.Logger, stdout io.Writer) (err error) {
	e := &everything{settings: s, log: log, front: front}
	defer func() { err = errors.Join(err, e.close()) }()
	if err := e.open(ctx); err != nil {
		return err
	}
	return e.run(ctx, stdout)
}

// open makes every part; nothing is served yet.
func (e *everything) open(ctx context.Context) error {
	setting, err := secretsSetting(e.settings)
	if err != nil {
		return err
	}
	functionsLog := e.log.With("node", "functions")
	secrets, err := parseSecrets(setting, functionsLog)
	if err != nil {
		return err
	}
	if e.settings.redisURL == "" {
		if e.redis, err = startRedis(); err != nil {
			return err
		}
		e.settings.redisURL = "redis://" + e.redis.Addr()
	}
	if e.functions, err = openFunctions(ctx, e.settings, secrets, functionsLog); err != nil {
		return err
	}
	listener, err := loopback(ctx)
	if err != nil {
		return err
	}
	e.api = &door{listeners: []net.Listener{listener}, log: functionsLog}
	if e.settings.apiKeys == "" {
		if e.apiKeys, err = madeSecret(e.settings.data, apiKeysName); err != nil {
			return err
		}
	}
	targets, err := e.openNodes(ctx, setting)
	if err != nil {
		return err
	}
	var page *url.URL
	if e.settings.dev {
		if e.page, err = newDevPage(ctx, e.front.url()); err != nil {
			return err
		}
		page = e.page.url
	}
	e.balancer, err = balancer.New(balancer.Options{Targets: targets, API: urlOf(listener), Page: page, Sticky: e.settings.sticky,
		Log: e.log.With("node", "balancer")})
	return err
}

// startRedis starts the embedded Redis on a free port. Keys expire as time passes, which the library does only when told.
func startRedis() (*miniredis.Miniredis, error) {
	r := miniredis.NewMiniRedis()
	r.ClockTTL(true)
	if err := r.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	return r, nil
}

func (e *everything) openNodes(ctx context.Context, secrets string) ([]balancer.Target, error) {
	var targets []balancer.Target
	engine := e.engine()
	for i := range e.settings.nodes {
		config := server.Config{NodeID: fmt.Sprintf("node-%d", i+1), Stage: e.settings.stage, RedisURL: e.settings.redisURL,
			TokenSecrets: secrets, APIKeys: e.settings.apiKeys, APIKeysFile: e.apiKeys, TrustedHops: 1, Scheme: "http", DrainWindow: drainWindow,
			DockerHost: engine.host, DockerCerts: engine.certs, Tracing: e.settings.tracing}
		public, err := loopback(ctx)
		if err != nil {
			return nil, err
		}
		private, err := loopback(ctx)
		if err != nil {
			return nil, errors.Join(err, public.Close())
		}
		n, err := server.Open(ctx, config, public, private, e.log.With("node", config.NodeID))
		if err != nil {
			return nil, errors.Join(err, public.Close(), private.Close())
		}
		if e.nodes = append(e.nodes, n); i == 0 {
			e.private = urlOf(private).String()
		}
		targets = append(targets, balancer.Target{Name: config.NodeID, URL: urlOf(public), Health: urlOf(private).JoinPath("readyz")})
	}
	return targets, nil
}

// engine is the Docker Engine to watch. One that nodes can't take, say ssh://…, may be set for other programs: that must not keep all of this from
// starting.
func (e *everything) engine() dockerSettings {
	d := e.settings.docker
	if d.host == "" {
		return dockerSettings{}
	}
	if err := docker.CheckHost(d.host, d.certs); err != nil {
		e.log.Warn("containers can't be watched: DOCKER_HOST is not one for nodes", "error", err)
		return dockerSettings{}
	}
	return d
}

// run serves until ctx ends or a part fails, and returns when every part has ended.
func (e *everything) run(ctx context.Context, stdout io.Writer) error {
	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	// The nodes end when ctx does; what they and their clients need ends after them.
	back, stopBack := context.WithCancel(failed)
	nodes, stopNodes := context.WithCancel(failed)
	defer stopNodes()
	defer context.AfterFunc(ctx, stopNodes)()
	g.Go(func() error {
		defer stopBack()
		return e.runNodes(nodes)
	})
	key := rand.Text()
	g.Go(func() error { return e.functions.run(back) })
	g.Go(func() error { return e.api.serve(back, e.functions) })
	g.Go(func() error { return e.balancer.Run(back) })
	g.Go(func() error { return e.front.serve(back, withOperator(e.balancer, e.functions.session, key)) })
	if e.page != nil {
		g.Go(func() error { return e.page.run(back) })
	}
	g.Go(func() error { return e.announce(nodes, stdout, key) })
	return g.Wait()
}

func (e *everything) runNodes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range e.nodes {
		g.Go(func() error { return n.Run(ctx) })
	}
	return g.Wait()
}

// announce says "ready" when everything answers through the front door, and fails when that takes too long.
func (e *everything) announce(ctx context.Context, stdout io.Writer, key string) error {
	starting, cancel := context.WithTimeoutCause(ctx, startWait, errors.New("not ready within "+startWait.String()))
	defer cancel()
	inside := urlOf(e.front.listeners[0]).String()
	err := await(starting, func(ctx context.Context) bool {
		if e.page != nil && !answers(ctx, e.page.url.String(), 200) {
			return false // asked directly: a visitor's 502 would be logged
		}
		return e.balancer.Ready() && answers(ctx, inside+"/", 200) && answers(ctx, inside+"/api/todos", 401)
	})
	if ctx.Err() != nil {
		return nil // stopped before it was ready
	}
	if err != nil {
		return err
	}
	address := e.front.url()
	fmt.Fprintf(stdout, "ready %s\n", address)
	fmt.Fprintf(stdout, "operator %s%s%s (signs in as operator while this runs)\n", address, operatorPath, key)
	where := "API_KEYS"
	if e.apiKeys != "" {
		where = e.apiKeys
	}
	fmt.Fprintf(stdout, "server API %s/api (X-API-Key: a line of %s)\n", e.private, where)
	return nil
}

// close ends what run doesn't: safe after any part of open.
func (e *everything) close() error {
	e.front.close()
	var errs []error
	if e.api != nil {
		e.api.close()
	}
	for _, n := range e.nodes {
		errs = append(errs, n.Close())
	}
	if e.functions != nil {
		errs = append(errs, e.functions.close())
	}
	if e.redis != nil {
		e.redis.Close()
	}
	return errors.Join(errs...)
}
