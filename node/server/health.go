package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"tideline/node/conn"
	"tideline/shared/limit"
)

// State of a node's life. A node is ready in exactly one of them.
type State int32

// States, in their order.
const (
	Starting State = iota
	Ready
	Draining
)

func (s State) String() string { return [...]string{"starting", "ready", "draining"}[s] }

// probeStale is the age past which the subscription counts as deaf although its connection stands: one probe was lost for sure.
const probeStale = limit.ProbeEvery + limit.ProbeTimeout + time.Second

// statusEvery is how often the health endpoints' view of Redis is renewed; a look takes up to a second when Redis hangs.
const statusEvery = 500 * time.Millisecond

// health answers the load balancer and people from what watch saw last, so that a Redis that hangs can't make a health check slow
// and the load balancer replace the node. It is safe for concurrent use.
type health struct {
	state atomic.Int32
	seen  atomic.Pointer[conn.Status]
	ask   func(context.Context) conn.Status
}

func newHealth(ask func(context.Context) conn.Status) *health {
	h := &health{ask: ask}
	h.seen.Store(&conn.Status{})
	return h
}

func (h *health) get() State          { return State(h.state.Load()) }
func (h *health) set(s State)         { h.state.Store(int32(s)) }
func (h *health) status() conn.Status { return *h.seen.Load() }

// watch looks until ctx ends.
func (h *health) watch(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		s := h.ask(ctx)
		h.seen.Store(&s)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// check is one line of /readyz.
type check struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

func ok(good bool, reason string) check {
	if good {
		return check{OK: true}
	}
	return check{Reason: reason}
}

func checks(s conn.Status) map[string]check {
	return map[string]check{
		"redis":        ok(s.RedisReachable, "Redis does not answer: sockets stay; subscribing, publishing and presence answer error 100 until it is back"),
		"subscription": ok(s.Subscription.Connected, "the subscriber connection is being rebuilt: subscribers will get what they miss, or be told to resync"),
		"probe": ok(s.Subscription.ProbeAge < probeStale,
			fmt.Sprintf("the last probe came back %.1f s ago; a healthy subscription hears one every %v", s.Subscription.ProbeAge.Seconds(), limit.ProbeEvery)),
		"promotion_proof": ok(s.PromotionProof, "the server refuses INFO replication: a promoted replica that lagged would go unnoticed"),
	}
}

// degraded tells whether something that clients need is away. A missing promotion proof is shown, and is not an outage.
func degraded(s conn.Status) bool { return !s.RedisReachable || !hears(s) }

// hears tells whether publications arrive: the subscriber connections stand, and their probes come back.
func hears(s conn.Status) bool {
	return s.Subscription.Connected && s.Subscription.ProbeAge < probeStale
}

// healthz lives as long as the process can answer.
func (h *health) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

// readyz is what the load balancer asks: 503 only when starting or draining. Redis away is degraded and still 200, because a
// Redis outage must not make the load balancer replace the whole fleet.
func (h *health) readyz(w http.ResponseWriter, _ *http.Request) {
	state, s := h.get(), h.status()
	body := struct {
		Status string           `json:"status"`
		Checks map[string]check `json:"checks"`
	}{Status: state.String(), Checks: checks(s)}
	code := http.StatusServiceUnavailable
	if state == Ready {
		code = http.StatusOK
		if degraded(s) {
			body.Status = "degraded"
		}
	}
	writeJSON(w, code, body)
}

// websocket keeps the shape that people's dashboards already know. Unhealthy: not taking sockets.
func (h *health) websocket(w http.ResponseWriter, _ *http.Request) {
	s := h.status()
	type counts struct {
		Redis       bool `json:"redis_connected"`
		Connections int  `json:"active_connections"`
		Channels    int  `json:"active_channels"`
		PubSub      bool `json:"pubsub_active"`
	}
	status, code := "healthy", http.StatusOK
	switch {
	case h.get() != Ready:
		status, code = "unhealthy", http.StatusServiceUnavailable
	case degraded(s):
		status = "degraded"
	}
	writeJSON(w, code, struct {
		Status string `json:"status"`
		Checks counts `json:"checks"`
	}{status, counts{s.RedisReachable, s.Connections, s.Channels, hears(s)}})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// The client may be gone by now; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(body)
}
