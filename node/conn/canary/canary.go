// Package canary proves on every node, all the time, that what is published still reaches a socket: one node of the fleet publishes on
// channel.Canary, and each node listens over a socket to its own public port, as a browser would.
//
// Who publishes holds a lock, and each canary is fenced by it. When that node dies or is cut off from Redis, another takes over; a node that drains
// hands over at once. Redis away, no node publishes and all of them miss: a silent canary is a missed one. A node that is slow or deaf misses
// alone. Nothing here ever makes a node unready: the figures are for people and alarms.
package canary

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/shared/bus"
	"tideline/shared/limit"
	"tideline/shared/metric"
)

// Options of New. Zero durations take their limit.
type Options struct {
	Bus     *bus.Bus
	History bus.History // of the channel's namespace
	NodeID  string
	// URL is the WebSocket endpoint on the node's own public port: ws://host:port/connection/websocket.
	URL string
	// Token is what conn.Options.CanaryToken is.
	Token   string
	Metrics prometheus.Registerer // nil registers none
	Log     *slog.Logger

	Interval time.Duration // limit.CanaryInterval; the same on all nodes
	Wait     time.Duration // limit.CanaryWait
	Retry    time.Duration // limit.CanaryRetry
	Lock     bus.LockOptions
}

// Canary is one node's. Run may be called once.
type Canary struct {
	o             Options
	heard, missed prometheus.Counter
	latency       prometheus.Histogram

	mu     sync.Mutex
	due    time.Time // when the next one must have been heard
	silent bool      // the last one was missed
}

// New makes a canary and registers its metrics. Nothing is published or heard before Run.
func New(o Options) *Canary {
	o.Interval = cmp.Or(o.Interval, limit.CanaryInterval)
	o.Wait = cmp.Or(o.Wait, limit.CanaryWait)
	o.Retry = cmp.Or(o.Retry, limit.CanaryRetry)
	c := &Canary{o: o,
		heard:  prometheus.NewCounter(prometheus.CounterOpts{Name: metric.CanaryHeard, Help: "Canaries that came over the node's own socket."}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{Name: metric.CanaryMissed, Help: "Canaries that did not come over the node's own socket in time."}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: metric.CanaryLatency, Help: "From publish to the node's own socket, in seconds, by the publisher's clock.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)})}
	if o.Metrics != nil {
		o.Metrics.MustRegister(c.heard, c.missed, c.latency)
	}
	return c
}

// Run publishes when it is this node's turn, listens and counts until ctx ends, and returns when all has ended, within
// limit.CommandBudget: the lock is given back.
func (c *Canary) Run(ctx context.Context) {
	c.mu.Lock()
	c.due = time.Now().Add(c.o.Interval + c.o.Wait)
	c.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() { c.compete(ctx) })
	running.Go(func() { c.listen(ctx) })
	running.Go(func() { c.watch(ctx) })
	running.Wait()
}

// hear counts a canary that came at now and was published at sent.
func (c *Canary) hear(now, sent time.Time) {
	c.heard.Inc()
	c.latency.Observe(max(0, now.Sub(sent).Seconds()))
	c.mu.Lock()
	was := c.silent
	c.silent, c.due = false, now.Add(c.o.Interval+c.o.Wait)
	c.mu.Unlock()
	if was {
		c.o.Log.Info("canary heard again")
	}
}

// watch counts what is not heard.
func (c *Canary) watch(ctx context.Context) {
	timer := time.NewTimer(c.o.Interval + c.o.Wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(c.look(time.Now()))
	}
}

// look counts a miss when a canary's time has gone by, and answers how long the next one may take.
func (c *Canary) look(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.due) {
		return c.due.Sub(now)
	}
	c.missed.Inc()
	if !c.silent {
		c.o.Log.Warn("canary not heard: publications may not reach this node's sockets", "within", c.o.Interval+c.o.Wait)
	}
	c.silent, c.due = true, now.Add(c.o.Interval) // of a process that was paused for long, all that it slept through are one
	return c.o.Interval
}
