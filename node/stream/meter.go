package stream

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/shared/bus"
	"tideline/shared/metric"
)

// Reasons for which a stream ends on this node: label reason of metric.StreamStops.
const (
	stopUnwatched = "unwatched" // its last subscriber here has gone
	stopShutdown  = "shutdown"  // the node drains or ends
	stopLost      = "lost"      // the lock was lost, or not renewed in time
	stopPublish   = "publish"   // a publication failed
	stopSource    = "source"    // the source can't go on
)

// Where a stream goes on from: label from of metric.StreamStarts.
const (
	fromBeginning = "beginning"
	fromCursor    = "cursor" // another reader, perhaps on another node, was here before
)

// meter holds the metrics of a node's streams. It is safe for concurrent use.
type meter struct {
	running        prometheus.Gauge
	lines, dropped *prometheus.CounterVec
	starts, stops  *prometheus.CounterVec
}

// counters count the lines of one stream's namespace.
type counters struct{ lines, dropped prometheus.Counter }

// newMeter registers with r, unless it is nil. The series of all namespaces that have a source begin at zero.
func newMeter(r prometheus.Registerer, sources map[string]Source) *meter {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"namespace"}, labels...))
	}
	m := &meter{
		running: prometheus.NewGauge(prometheus.GaugeOpts{Name: metric.StreamsRunning, Help: "Streams that this node reads."}),
		lines:   vec(metric.StreamLines, "Lines of streams that were published."),
		dropped: vec(metric.StreamDropped, "Lines of streams that were dropped because they came too fast."),
		starts:  vec(metric.StreamStarts, "Streams that began here, by where they go on from.", "from"),
		stops:   vec(metric.StreamStops, "Streams that ended here, by reason.", "reason"),
	}
	for ns := range sources {
		m.counters(ns)
		for _, from := range []string{fromBeginning, fromCursor} {
			m.starts.WithLabelValues(ns, from)
		}
		for _, reason := range []string{stopUnwatched, stopShutdown, stopLost, stopPublish, stopSource} {
			m.stops.WithLabelValues(ns, reason)
		}
	}
	if r != nil {
		r.MustRegister(m.running, m.lines, m.dropped, m.starts, m.stops)
	}
	return m
}

func (m *meter) counters(ns string) counters {
	return counters{lines: m.lines.WithLabelValues(ns), dropped: m.dropped.WithLabelValues(ns)}
}

// begins counts a stream that begins here; what it returns is called when it ends.
func (m *meter) begins(ns, cursor string) func() {
	from := fromBeginning
	if cursor != "" {
		from = fromCursor
	}
	m.starts.WithLabelValues(ns, from).Inc()
	m.running.Inc()
	return m.running.Dec
}

// publishError is why a stream ended whose publications failed.
type publishError struct{ error }

func (e publishError) Unwrap() error { return e.error }

// stopReason says why a reading ended with err; ctx is the lock's.
func (s *Streams) stopReason(ctx context.Context, err error) string {
	var refused publishError
	switch {
	case errors.Is(err, bus.ErrFenced):
		return stopLost
	case ctx.Err() != nil && s.ending():
		return stopShutdown
	case ctx.Err() != nil:
		return stopUnwatched
	case errors.As(err, &refused):
		return stopPublish
	}
	return stopSource
}

// ending reports whether Run is about to return.
func (s *Streams) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running == nil || s.running.Err() != nil
}
