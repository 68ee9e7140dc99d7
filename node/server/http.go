package server

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tideline/shared/limit"
	"tideline/shared/metric"
)

// HTTP limits of both ports. HeaderTimeout < limit.HandshakeTimeout + limit.HTTPIdleTimeout holds by far; it bounds slow-loris clients.
const (
	headerTimeout = 10 * time.Second
	headerBytes   = 16 << 10 // 431 past it (net/http adds 4 KiB of slack for the request line)
	pageTimeout   = 60 * time.Second
)

// NodeHeader names the node on every response.
const NodeHeader = "X-Tideline-Node"

func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    headerBytes,
		IdleTimeout:       limit.HTTPIdleTimeout,
		// What net/http complains of is the other side's doing: broken requests, connections reset.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// public is what the load balancer sends here.
func (n *Node) public() http.Handler {
	mux := http.NewServeMux()
	n.sockets.Register(mux)
	mux.Handle("/", withWriteTimeout(n.page))
	mux.HandleFunc("/api/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"type":"about:blank","title":"Not Found","status":404,` +
			`"detail":"/api/ is answered by the functions; the load balancer in front routes it."}` + "\n"))
	})
	return n.counted(mux)
}

// private is for the load balancer's health checks, Prometheus, and people with access to the machine.
func (n *Node) private() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", n.health.healthz)
	mux.HandleFunc("GET /readyz", n.health.readyz)
	mux.HandleFunc("GET /health/websocket", n.health.websocket)
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{Registry: n.registry}))
	if n.api != nil {
		n.api.Register(mux)
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return n.traced(n.counted(mux))
}

// withWriteTimeout bounds a slow reader of the page. The server itself has no write timeout: it would end streams.
func withWriteTimeout(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Every connection of net/http supports it; without it the response still works.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pageTimeout))
		h.ServeHTTP(w, r)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	})
}

// counted names the node and counts the response by the pattern that matched, so that paths can't blow up the metric.
func (n *Node) counted(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(NodeHeader, n.id)
		c := &statusWriter{ResponseWriter: w}
		defer func() { // also when the handler panics, which is how net/http aborts a response
			n.requests.WithLabelValues(methodLabel(r.Method), routeLabel(r.Pattern), strconv.Itoa(c.code())).Inc()
		}()
		mux.ServeHTTP(c, r)
	})
}

func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

func routeLabel(pattern string) string {
	if _, path, found := strings.Cut(pattern, " "); found {
		return path
	}
	if pattern == "" {
		return "none"
	}
	return pattern
}

// statusWriter remembers the status. Hijack is implemented directly because gorilla/websocket asks for the interface.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

func (w *statusWriter) Flush()                      { _ = http.NewResponseController(w.ResponseWriter).Flush() }
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// registerMetrics registers what belongs to the process; the sockets register their own.
func (n *Node) registerMetrics() error {
	reg := prometheus.WrapRegistererWith(prometheus.Labels{"instance": n.id}, n.registry)
	n.requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.HTTPRequests,
		Help: "HTTP requests answered, by method, route pattern and status; 101 is a socket or an HTTP stream."}, []string{"method", "route", "status"})
	started := time.Now()
	uptime := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metric.Uptime, Help: "Seconds since the node started."},
		func() float64 { return time.Since(started).Seconds() })
	for _, c := range []prometheus.Collector{n.requests, uptime, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}
