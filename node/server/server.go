// Package server composes a node: settings, the public and the private HTTP server, health, metrics, and the order of its end.
//
// A Node's life: it listens, starts the sockets, is ready; when its context ends it is not ready at once, serves on for the
// grace (the load balancer notices), closes its clients evenly over the window, and stops. Nothing here waits for Redis: with
// Redis away a node starts, is ready, and says that it is degraded.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tideline/node/conn"
	"tideline/node/front"
	"tideline/node/serverapi"
	"tideline/shared/trace"
)

// startWait is how long a starting node waits for its first probe before it calls itself ready without Redis.
const startWait = 3 * time.Second

// stopWait bounds the end of plain HTTP requests when a node stops.
const stopWait = 2 * time.Second

// Sockets is the part of a node that holds clients: conn.Service, seen from here.
type Sockets interface {
	// Register adds the socket endpoints to the public mux.
	Register(mux *http.ServeMux)
	// Run works until ctx ends, and returns when everything that it started has ended.
	Run(ctx context.Context) error
	// Drain refuses newcomers and closes the clients in random order, evenly over the window.
	Drain(ctx context.Context, window time.Duration) error
	// Status may ask Redis, for a second at most.
	Status(ctx context.Context) conn.Status
}

// Options of New.
type Options struct {
	NodeID   string
	Sockets  Sockets
	Page     http.Handler
	API      *serverapi.API       // on the private port; nil: none
	Registry *prometheus.Registry // the node's own; never the default one
	// Public and Private are closed by Run or Close.
	Public, Private         net.Listener
	DrainGrace, DrainWindow time.Duration
	// Ordered, when not nil, begins the drain with a reason and without the end: the node then stays up, not ready, until its
	// context ends. The instance's metadata and operators order; SIGTERM ends.
	Ordered <-chan string
	// Watch, when not nil, is run beside the sockets, and ends with its context: it may feed Ordered.
	Watch func(ctx context.Context)
	// Canary, when not nil, is run while the node is ready, and ends with its context, soon.
	Canary func(ctx context.Context)
	// Drained, when not nil, is called once when an ordered drain is over, and ends with its context.
	Drained func(ctx context.Context)
	// Tracing, when not nil, records spans of requests to the API.
	Tracing trace.Provider
	Log     *slog.Logger
	// Release is called when Run has ended everything, or by Close: it gives up what the sockets worked with. Nil does nothing.
	Release func() error
}

// Node is one node. Run may be called once; State may be called at any time.
type Node struct {
	id              string
	sockets         Sockets
	page            http.Handler
	api             *serverapi.API
	registry        *prometheus.Registry
	requests        *prometheus.CounterVec
	publicListener  net.Listener
	privateListener net.Listener
	grace, window   time.Duration
	ordered         <-chan string
	watch, drained  func(context.Context)
	canary          func(context.Context)
	tracing         trace.Provider
	log             *slog.Logger
	health          *health
	release         func() error
	released        sync.Once
}

// New composes a node and registers its metrics. Nothing is served before Run.
func New(o Options) (*Node, error) {
	n := &Node{id: o.NodeID, sockets: o.Sockets, page: o.Page, api: o.API, registry: o.Registry, publicListener: o.Public,
		privateListener: o.Private, grace: o.DrainGrace, window: o.DrainWindow, ordered: o.Ordered, watch: o.Watch, drained: o.Drained, canary: o.Canary, tracing: o.Tracing, log: o.Log, release: o.Release,
		health: newHealth(o.Sockets.Status)}
	if err := n.registerMetrics(); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return n, nil
}

// State tells where in its life the node is.
func (n *Node) State() State { return n.health.get() }

// Run serves until ctx ends, then drains and stops, which takes grace + window + a few seconds; or until something fails,
// which ends everything at once and is the error.
func (n *Node) Run(ctx context.Context) error {
	// ctx only begins the drain: what serves must outlive it.
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, working := errgroup.WithContext(alive)
	public, private := newHTTPServer(n.public(), n.log), newHTTPServer(n.private(), n.log)
	g.Go(func() error { return n.serve(private, n.privateListener, "POST /api/") })
	g.Go(func() error { return n.serve(public, n.publicListener, "GET "+conn.Path, "GET "+conn.PathUniWebSocket) })
	g.Go(func() error {
		if err := n.sockets.Run(working); err != nil && working.Err() == nil {
			return fmt.Errorf("sockets: %w", err)
		}
		return nil
	})
	g.Go(func() error { n.health.watch(working); return nil })
	g.Go(func() error { tidy(working, tidyEvery, readHeap, giveBack); return nil })
	if n.watch != nil {
		g.Go(func() error { n.watch(working); return nil })
	}
	g.Go(func() error {
		defer stop() // the sockets end last but for the private port, which answers health checks to the end
		n.live(ctx, working)
		shutdown(public)
		return nil
	})
	<-working.Done()
	shutdown(private)
	err := errors.Join(g.Wait(), n.Close())
	n.log.Info("node stopped")
	return err
}

// Close gives up what the node holds: for a node that was never run. Run does it at its end; a second call does nothing.
func (n *Node) Close() (err error) {
	n.released.Do(func() {
		// After Run both are closed, which is all that these errors could say.
		_ = n.publicListener.Close()
		_ = n.privateListener.Close()
		if n.release != nil {
			err = n.release()
		}
	})
	return err
}

// live goes through the states, and returns when it is time to stop.
func (n *Node) live(ctx, working context.Context) {
	n.awaitProbe(ctx, working)
	if working.Err() != nil {
		return
	}
	if ctx.Err() == nil {
		n.health.set(Ready)
		n.log.Info("node ready", "public", n.publicListener.Addr().String(), "private", n.privateListener.Addr().String())
	}
	var sings sync.WaitGroup
	defer sings.Wait()
	ready, leave := context.WithCancel(working)
	defer leave()
	if n.canary != nil && n.State() == Ready {
		sings.Go(func() { n.canary(ready) })
	}
	select {
	case <-ctx.Done():
	case reason := <-n.ordered:
		n.log.Warn("drain ordered", "reason", reason)
	case <-working.Done():
		return
	}
	n.health.set(Draining)
	leave() // what a draining node misses hurts nobody
	n.log.Info("node draining", "grace", n.grace, "window", n.window, "connections", n.health.status().Connections)
	select {
	case <-time.After(n.grace):
	case <-working.Done():
		return
	}
	if err := n.sockets.Drain(working, n.window); err != nil && working.Err() == nil {
		n.log.Warn("drain not complete", "error", err)
	}
	if ctx.Err() == nil {
		n.log.Info("drained; not ready until the end", "connections", n.health.status().Connections)
		if n.drained != nil {
			ended, end := context.WithCancel(working)
			defer context.AfterFunc(ctx, end)()
			defer end()
			n.drained(ended)
		}
	}
	select {
	case <-ctx.Done():
	case <-working.Done():
	}
}

// awaitProbe gives the subscription a moment to stand, so that the first visitors of a new node don't wait for it.
func (n *Node) awaitProbe(ctx, working context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(startWait); degraded(n.health.status()); {
		select {
		case <-tick.C:
		case <-late:
			n.log.Warn("starting without Redis", "checks", checks(n.health.status()))
			return
		case <-ctx.Done():
			return
		case <-working.Done():
			return
		}
	}
}

// serve answers requests that begin with one of the lines in front of the server, where they cost little.
func (n *Node) serve(s *http.Server, l net.Listener, lines ...string) error {
	f := front.Listen(l, front.Options{Handler: s.Handler, Lines: lines, First: s.ReadHeaderTimeout, Idle: s.IdleTimeout, Log: n.log})
	defer f.Wait() // Serve closes it
	if err := s.Serve(f); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// shutdown lets plain requests end, and cuts those that don't.
func shutdown(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		_ = s.Close() // closing is all that is left to do
	}
}
