// Package balancer stands in for an AWS Application Load Balancer on one machine: what works behind it works behind the real one.
//
// It behaves as the real one is documented to: health checks decide who gets new visitors; a visitor without a cookie goes to the
// target with the least outstanding requests (a WebSocket counts as one), in turn among equals; a cookie keeps a visitor on its
// target while that is healthy; when no target is healthy all of them are tried; a target that is gone gives 502, none at all 503,
// silence 504; /api/* goes elsewhere. Nothing is retried. One Balancer may be used concurrently.
package balancer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"tideline/shared/limit"
)

// Numbers of the stand-in. The real one's smallest health check interval is 5 s; a person at a laptop shouldn't wait that long.
const (
	DefaultHealthEvery = time.Second
	healthTimeout      = 800 * time.Millisecond // < DefaultHealthEvery
	connectTimeout     = 10 * time.Second       // the real one's; 504 past it
)

// Target is a node.
type Target struct {
	Name string
	URL  *url.URL
	// Health is asked with GET; 200 is healthy.
	Health *url.URL
}

// Options of New.
type Options struct {
	Targets []Target
	// API answers /api/*; nil answers 503 there, as a target group without targets does.
	API *url.URL
	// Page, when set, answers what is neither API nor socket: a development server.
	Page *url.URL
	// Sticky sets and honours the cookie.
	Sticky bool
	// HealthEvery and IdleTimeout are DefaultHealthEvery and limit.IdleTimeout when zero.
	HealthEvery, IdleTimeout time.Duration
	Log                      *slog.Logger
}

// Balancer is an http.Handler. Run does the health checks; without it every target stays unchecked, and all are tried.
type Balancer struct {
	options Options
	api     http.Handler
	page    http.Handler
	client  *http.Client
	close   func() // idle connections

	mu      sync.Mutex
	targets []*target
	next    int // where the turn among equals starts
}

// target's fields below proxy are guarded by Balancer.mu.
type target struct {
	Target
	cookie string // opaque and new at every start: nothing can be learnt from it
	proxy  http.Handler

	outstanding int
	initial     bool // has never been healthy: the first good check will do
	healthy     bool
	streak      int // checks in a row that contradict healthy
	draining    bool
}

// New checks the options.
func New(o Options) (*Balancer, error) {
	if o.HealthEvery == 0 {
		o.HealthEvery = DefaultHealthEvery
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = limit.IdleTimeout
	}
	transport := newTransport(o.IdleTimeout)
	b := &Balancer{options: o, client: &http.Client{Timeout: healthTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
		close: transport.CloseIdleConnections}
	seen := make(map[string]bool)
	for _, t := range o.Targets {
		if t.URL == nil || t.Health == nil || seen[t.Name] {
			return nil, fmt.Errorf("target %q: needs a URL, a health URL and a name of its own", t.Name)
		}
		seen[t.Name] = true
		entry := &target{Target: t, cookie: rand.Text(), initial: true}
		entry.proxy = b.newProxy(t.URL, transport, entry)
		b.targets = append(b.targets, entry)
	}
	if o.API != nil {
		b.api = b.newProxy(o.API, transport, nil)
	}
	if o.Page != nil {
		b.page = b.newProxy(o.Page, transport, nil)
	}
	return b, nil
}

func (b *Balancer) newProxy(to *url.URL, transport http.RoundTripper, t *target) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { rewrite(p, to) },
		Transport:     transport,
		FlushInterval: -1, // streams pass through as they come
		ModifyResponse: func(r *http.Response) error {
			if t != nil && b.options.Sticky {
				r.Header.Add("Set-Cookie", b.cookie(t).String())
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { b.fail(w, r, to, err) },
		ErrorLog:     slog.NewLogLogger(b.options.Log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP implements http.Handler. It returns when the response, or the socket, has ended.
func (b *Balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A stream is answered at once, maybe while the transport still looks for the end of the request's body: by default the server then closes
	// the body under its hands, for which the transport ends the stream. Only HTTP/2 refuses, and has no need.
	_ = http.NewResponseController(w).EnableFullDuplex()
	switch {
	case isAPI(r.URL.Path):
		b.serveOther(w, r, b.api)
	case b.page != nil && !isSocket(r.URL.Path):
		b.serveOther(w, r, b.page)
	default:
		t := b.acquire(r)
		if t == nil {
			answer(w, http.StatusServiceUnavailable)
			return
		}
		defer b.release(t)
		t.proxy.ServeHTTP(w, r)
	}
}

func (b *Balancer) serveOther(w http.ResponseWriter, r *http.Request, h http.Handler) {
	if h == nil {
		answer(w, http.StatusServiceUnavailable)
		return
	}
	h.ServeHTTP(w, r)
}

// acquire picks a target and counts the request as outstanding there; nil when there is none.
func (b *Balancer) acquire(r *http.Request) *target {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.stickyLocked(r)
	if t == nil {
		t = b.leastLocked()
	}
	if t != nil {
		t.outstanding++
	}
	return t
}

func (b *Balancer) release(t *target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.outstanding--
}

// stickyLocked is the target that the visitor's cookie names, if it may still have visitors.
func (b *Balancer) stickyLocked(r *http.Request) *target {
	if !b.options.Sticky {
		return nil
	}
	for _, c := range r.CookiesNamed(CookieName) {
		for _, t := range b.targets {
			if t.cookie == c.Value && t.healthy && !t.draining {
				return t
			}
		}
	}
	return nil
}

// leastLocked is the healthy target with the least outstanding requests, in turn among equals. When none is healthy, all that are
// registered are tried: the real one fails open too.
func (b *Balancer) leastLocked() *target {
	pick := func(eligible func(*target) bool) *target {
		best := -1
		for i := range b.targets {
			at := (b.next + i) % len(b.targets)
			if eligible(b.targets[at]) && (best < 0 || b.targets[at].outstanding < b.targets[best].outstanding) {
				best = at
			}
		}
		if best < 0 {
			return nil
		}
		b.next = (best + 1) % len(b.targets)
		return b.targets[best]
	}
	if t := pick(func(t *target) bool { return t.healthy && !t.draining }); t != nil {
		return t
	}
	return pick(func(t *target) bool { return !t.draining })
}

// Deregister makes a target drain: it keeps what it has and gets nothing new. It reports whether there is such a target.
func (b *Balancer) Deregister(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.targets {
		if t.Name == name {
			t.draining = true
			return true
		}
	}
	return false
}

// Ready reports whether every target has passed a health check and is healthy.
func (b *Balancer) Ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.targets {
		if !t.healthy {
			return false
		}
	}
	return true
}

// Run checks the targets' health until ctx ends, and returns after its last check has.
func (b *Balancer) Run(ctx context.Context) error {
	defer b.close()
	var checks sync.WaitGroup
	for _, t := range b.targets {
		checks.Go(func() { b.watch(ctx, t) })
	}
	checks.Wait()
	return nil
}

func (b *Balancer) watch(ctx context.Context, t *target) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		err := b.ask(ctx, t)
		if ctx.Err() != nil {
			return
		}
		if b.record(t, err); b.isInitial(t) {
			timer.Reset(b.options.HealthEvery / 20) // a person is waiting for the first one
		} else {
			timer.Reset(b.options.HealthEvery)
		}
	}
}

func (b *Balancer) isInitial(t *target) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return t.initial
}

func (b *Balancer) ask(ctx context.Context, t *target) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.Health.String(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "ELB-HealthChecker/2.0")
	res, err := b.client.Do(r)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("answers %d", res.StatusCode)
	}
	return nil
}

// record turns the outcomes of checks into health: one good check makes a new target healthy, later it takes some in a row.
func (b *Balancer) record(t *target, err error) {
	b.mu.Lock()
	was := t.healthy
	switch {
	case (err == nil) == t.healthy:
		t.streak = 0
	case t.healthy:
		if t.streak++; t.streak >= limit.HealthFailures {
			t.healthy, t.streak = false, 0
		}
	default:
		if t.streak++; t.initial || t.streak >= limit.HealthSuccesses {
			t.healthy, t.initial, t.streak = true, false, 0
		}
	}
	now := t.healthy
	b.mu.Unlock()
	switch {
	case now && !was:
		b.options.Log.Info("target healthy", "target", t.Name)
	case was && !now:
		b.options.Log.Warn("target unhealthy: it gets no new visitors", "target", t.Name, "error", err)
	}
}

// fail answers for a target that didn't.
func (b *Balancer) fail(w http.ResponseWriter, r *http.Request, to *url.URL, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // the visitor has gone: nobody to answer
	}
	status := http.StatusBadGateway
	if timeout := interface{ Timeout() bool }(nil); errors.As(err, &timeout) && timeout.Timeout() {
		status = http.StatusGatewayTimeout
	}
	b.options.Log.Warn("target did not answer", "target", to.Host, "path", r.URL.Path, "status", status, "error", err)
	answer(w, status)
}
