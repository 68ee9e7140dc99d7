package conn

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/metric"
)

// meter holds the node's metrics about sockets and the bus. It implements hub.Meter.
type meter struct {
	total       prometheus.Counter
	sent        *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	roundTrip   prometheus.Histogram
	disconnects *prometheus.CounterVec
	errors      *prometheus.CounterVec
	slow        prometheus.Counter
	published   *prometheus.CounterVec
	passedOn    *prometheus.CounterVec

	// Publications of one namespace come by the thousand: the label look-up is done once.
	byNamespace sync.Map // string → namespaceMeter
}

type namespaceMeter struct {
	sent    prometheus.Counter
	latency prometheus.Observer
}

func newMeter(reg prometheus.Registerer, s *Service) *meter {
	latencies := prometheus.ExponentialBuckets(0.0005, 2, 16) // 0.5 ms to 16 s
	m := &meter{
		total:       prometheus.NewCounter(prometheus.CounterOpts{Name: metric.ConnectionsTotal, Help: "Connections accepted since the start."}),
		sent:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.MessagesSent, Help: "Publications queued to sockets."}, []string{"namespace"}),
		latency:     prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: metric.MessageLatency, Help: "From publish to socket write, in seconds, by the publisher's clock.", Buckets: latencies}, []string{"namespace"}),
		roundTrip:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: metric.RoundTrip, Help: "From the protocol's ping to its pong, in seconds.", Buckets: latencies}),
		disconnects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.Disconnects, Help: "Connections that the node closed, by code."}, []string{"code"}),
		errors:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.CommandErrors, Help: "Commands that were answered with an error."}, []string{"method", "code"}),
		slow:        prometheus.NewCounter(prometheus.CounterOpts{Name: metric.SlowConsumers, Help: "Connections closed because their queue was full."}),
		published:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.Publications, Help: "Publications by clients of this node, by result."}, []string{"result"}),
		passedOn:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.PassedOn, Help: "Commands for HTTP streams of other nodes that were passed on, by result."}, []string{"result"}),
	}
	for _, result := range []string{passedTaken, passedUnknown, passedUnavailable} {
		m.passedOn.WithLabelValues(result) // there from the beginning, at 0
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.total, m.sent, m.latency, m.roundTrip, m.disconnects, m.errors, m.slow, m.published, m.passedOn)
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	counter := func(name, help string, labels prometheus.Labels, f func() uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(f()) }))
	}
	open := func() float64 { return float64(s.count()) }
	gauge(metric.Connections, "Open connections.", open)
	gauge(metric.ConnectionsAlias, "Open connections: the same value under the name that older dashboards know.", open)
	gauge(metric.QueueBytes, "Bytes queued for all connections.", func() float64 { return float64(s.hub.QueuedBytes()) })
	gauge(metric.Subscriptions, "Subscriptions of all connections.", func() float64 { return float64(s.hub.Subscriptions()) })
	gauge(metric.Channels, "Channels followed on the bus.", func() float64 { return float64(s.feed.Stats().Channels) })
	gauge(metric.ProbeAge, "Age in seconds of the last liveness probe that came back.", func() float64 { return s.sub.Health().ProbeAge.Seconds() })
	gauge(metric.RedisUp, "1 while the subscription to Redis is alive.", func() float64 {
		if s.sub.Health().Connected {
			return 1
		}
		return 0
	})
	counter(metric.GapsRepaired, "Gaps read from the stream.", nil, func() uint64 { return s.feed.Stats().GapsRepaired })
	counter(metric.GapsAnnounced, "Gaps that could not be repaired and were announced.", nil, func() uint64 { return s.feed.Stats().GapsAnnounced })
	for result, f := range map[string]func() uint64{
		"ring":   func() uint64 { return s.feed.Stats().FromRing },
		"redis":  func() uint64 { return s.feed.Stats().FromRedis },
		"failed": func() uint64 { return s.feed.Stats().Unrecovered },
	} {
		counter(metric.Recoveries, "Recoveries of clients, by what answered them.", prometheus.Labels{"result": result}, f)
	}
	counter(metric.HistoryReads, "History reads from Redis for recoveries and repairs.", nil, func() uint64 { return s.feed.Stats().HistoryReads })
	counter(metric.PositionReads, "Position reads from Redis.", nil, func() uint64 { return s.feed.Stats().PositionReads })
	counter(metric.Resubscribes, "Subscriber connections that were rebuilt.", nil, func() uint64 { return s.sub.Health().Rebuilt })
	stats := func(of func(bus.Stats) uint64) func() uint64 {
		return func() uint64 { return of(s.o.Bus.Stats()) }
	}
	const dropped = "Messages from Redis that were dropped; what they carried is read from the stream, or its loss is announced."
	counter(metric.Dropped, dropped, prometheus.Labels{"reason": "inbox_full"}, stats(func(b bus.Stats) uint64 { return b.Overflowed }))
	counter(metric.Dropped, dropped, prometheus.Labels{"reason": "unreadable"}, stats(func(b bus.Stats) uint64 { return b.Unreadable }))
	counter(metric.Dropped, dropped, prometheus.Labels{"reason": "hub_full"}, func() uint64 { return s.hub.Spilt() })
	counter(metric.Rotations, "Subscriber connections that were replaced for their age.", nil, stats(func(b bus.Stats) uint64 { return b.Rotated }))
	counter(metric.ProbesLost, "Liveness probes of the subscription that did not come back in time.", nil, stats(func(b bus.Stats) uint64 { return b.ProbesLost }))
	counter(metric.Retries, "Commands to Redis that were tried again.", nil, stats(func(b bus.Stats) uint64 { return b.Retries }))
	return m
}

// Delivered implements hub.Meter.
func (m *meter) Delivered(name string, n int, waited time.Duration) {
	ns := channel.NamespaceOf(name)
	v, ok := m.byNamespace.Load(ns)
	if !ok {
		v, _ = m.byNamespace.LoadOrStore(ns, namespaceMeter{m.sent.WithLabelValues(ns), m.latency.WithLabelValues(ns)})
	}
	nm := v.(namespaceMeter)
	nm.sent.Add(float64(n))
	nm.latency.Observe(max(0, waited.Seconds()))
}

// SlowConsumer implements hub.Meter.
func (m *meter) SlowConsumer() { m.slow.Inc() }

func (m *meter) goodbye(d disconnect) {
	m.disconnects.WithLabelValues(strconv.Itoa(int(d.code))).Inc()
}
