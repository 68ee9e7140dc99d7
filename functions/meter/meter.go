// Package meter takes a function's measurements: EMF lines in Lambda, a Prometheus registry elsewhere.
//
// Labels are given as name, value, name, value…, and a metric has the same label names wherever it is measured. Few values per label:
// each combination is a metric of its own, in CloudWatch at a price.
package meter

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Prometheus keeps measurements until they are scraped. It is safe for concurrent use.
type Prometheus struct {
	registry *prometheus.Registry
	function string
	log      *slog.Logger

	mu         sync.Mutex
	counters   map[string]*prometheus.CounterVec
	histograms map[string]*prometheus.HistogramVec
	refused    map[string]bool
}

// NewPrometheus has a registry of its own. The function's name is a constant label of every metric.
func NewPrometheus(function string, log *slog.Logger) *Prometheus {
	return &Prometheus{registry: prometheus.NewRegistry(), function: function, log: log, counters: map[string]*prometheus.CounterVec{},
		histograms: map[string]*prometheus.HistogramVec{}, refused: map[string]bool{}}
}

// Handler serves the registry in Prometheus's text format.
func (p *Prometheus) Handler() http.Handler {
	return promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{Registry: p.registry})
}

// Add counts n, which must not be negative.
func (p *Prometheus) Add(name string, n float64, labels ...string) {
	names, values := split(labels)
	p.mu.Lock()
	v, ok := p.counters[name]
	if !ok {
		v = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help(name), ConstLabels: prometheus.Labels{"function": p.function}}, names)
		p.counters[name] = v
		p.reportLocked(name, p.registry.Register(v))
	}
	p.mu.Unlock()
	c, err := v.GetMetricWithLabelValues(values...)
	if err != nil {
		p.report(name, err)
		return
	}
	c.Add(n)
}

// Observe records one value of a distribution.
func (p *Prometheus) Observe(name string, value float64, labels ...string) {
	names, values := split(labels)
	p.mu.Lock()
	v, ok := p.histograms[name]
	if !ok {
		v = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help(name), Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			ConstLabels: prometheus.Labels{"function": p.function}}, names)
		p.histograms[name] = v
		p.reportLocked(name, p.registry.Register(v))
	}
	p.mu.Unlock()
	h, err := v.GetMetricWithLabelValues(values...)
	if err != nil {
		p.report(name, err)
		return
	}
	h.Observe(value)
}

func (p *Prometheus) report(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reportLocked(name, err)
}

// reportLocked says once per metric that it is measured with other labels than before: a mistake of ours that must not fail a request.
func (p *Prometheus) reportLocked(name string, err error) {
	if err == nil || p.refused[name] {
		return
	}
	p.refused[name] = true
	p.log.Error("metric refused", "metric", name, "error", err)
}

func help(name string) string { return strings.ReplaceAll(name, "_", " ") + "." }

// split separates names from values; a name without a value gets "".
func split(labels []string) (names, values []string) {
	for i := 0; i < len(labels); i += 2 {
		names = append(names, labels[i])
		if i+1 < len(labels) {
			values = append(values, labels[i+1])
		} else {
			values = append(values, "")
		}
	}
	return names, values
}

func key(labels []string) string { return fmt.Sprintf("%q", labels) }
