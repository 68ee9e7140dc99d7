package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"tideline/local/balancer"
	"tideline/shared/limit"
)

const (
	// startWait bounds the start; a slow laptop's first start takes two seconds.
	startWait = 60 * time.Second
	// stopWait bounds each HTTP server's end. drainWindow + 2*stopWait and what else ends stay under the five seconds of Ctrl-C.
	stopWait    = time.Second
	drainWindow = 500 * time.Millisecond
)

// run is the command. It returns when everything that it started has ended.
func run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer) error {
	s, err := parse(args, getenv)
	if err != nil {
		return err
	}
	log := newLogger(stdout, s, getenv)
	listeners, err := listen(ctx, s)
	if err != nil {
		return err
	}
	front := &door{listeners: listeners, log: log}
	switch s.mode {
	case onlyBalancer:
		return runBalancer(ctx, s, front, log, stdout)
	case onlyFunctions:
		return runFunctions(ctx, s, front, log, stdout)
	default:
		return runEverything(ctx, s, front, log, stdout)
	}
}

// listen takes the front port first of all, so that a taken one is told before anything has started.
func listen(ctx context.Context, s settings) ([]net.Listener, error) {
	var config net.ListenConfig
	var listeners []net.Listener
	for i, addr := range s.listen {
		l, err := config.Listen(ctx, "tcp", addr)
		if err == nil {
			listeners = append(listeners, l)
			continue
		}
		if i > 0 && !errors.Is(err, syscall.EADDRINUSE) {
			continue // a machine without IPv6
		}
		for _, l := range listeners {
			l.Close()
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("PORT: %s is taken by another program. Stop that one, or choose another port: PORT=8081 make run", addr)
		}
		return nil, fmt.Errorf("PORT: %w", err)
	}
	return listeners, nil
}

// door is an HTTP server on some listeners.
type door struct {
	listeners []net.Listener
	log       *slog.Logger
}

func (d *door) close() {
	for _, l := range d.listeners {
		l.Close()
	}
}

// url is where the door is, for people.
func (d *door) url() string {
	host, port, err := net.SplitHostPort(d.listeners[0].Addr().String())
	if err != nil || net.ParseIP(host).IsLoopback() || net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// serve serves until ctx ends, and returns when plain requests have ended or stopWait is over. Sockets that pass through are cut.
func (d *door) serve(ctx context.Context, h http.Handler) error {
	passing, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: limit.IdleTimeout, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return passing }, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)}
	g, failed := errgroup.WithContext(ctx)
	for _, l := range d.listeners {
		g.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-failed.Done()
		cut()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
		defer cancel()
		if server.Shutdown(late) != nil {
			_ = server.Close() // closing is all that is left to do
		}
		return nil
	})
	return g.Wait()
}

// loopback is a free port on this machine.
func loopback(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", "127.0.0.1:0")
}

func urlOf(l net.Listener) *url.URL { return &url.URL{Scheme: "http", Host: l.Addr().String()} }

// runBalancer is the load balancer alone.
func runBalancer(ctx context.Context, s settings, front *door, log *slog.Logger, stdout io.Writer) error {
	b, err := balancer.New(balancer.Options{Targets: s.targets, API: s.api, Sticky: s.sticky, Log: log.With("node", "balancer")})
	if err != nil {
		front.close()
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.Run(ctx) })
	g.Go(func() error { return front.serve(ctx, b) })
	g.Go(func() error {
		// Targets may come later: that is no reason to end, and "ready" says that they are there.
		if await(ctx, func(context.Context) bool { return b.Ready() }) == nil {
			fmt.Fprintln(stdout, "ready", front.url())
		}
		return nil
	})
	return g.Wait()
}

// await polls until the condition holds, and fails when ctx ends first.
func await(ctx context.Context, condition func(context.Context) bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// answers reports whether GET on a URL answers with one of the statuses.
func answers(ctx context.Context, url string, statuses ...int) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return false
	}
	res.Body.Close()
	for _, s := range statuses {
		if res.StatusCode == s {
			return true
		}
	}
	return false
}
