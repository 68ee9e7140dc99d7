package aws

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tideline/shared/limit"
	"tideline/shared/metric"
	"tideline/test/awsnode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open is the SDK on an instance of a stand-in account.
func open(t *testing.T) (*awsnode.Cloud, *Services, *awsnode.Instance) {
	t.Helper()
	cloud := awsnode.Start(t, "group-1", "drain")
	instance := cloud.Launch(t, "i-1", "eu-west-1a")
	for _, pair := range instance.SDKEnv() {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"} {
		t.Setenv(name, "") // so that it is put back
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, wrong := range cloud.Wrong() {
			if !strings.Contains(wrong, "lacks something") { // TestRefusedFiguresAreGivenUp
				t.Error(wrong)
			}
		}
	})
	return cloud, s, instance
}

func TestALifecycleActionIsCompletedInTerminatingWaitOnly(t *testing.T) {
	cloud, s, instance := open(t)
	l := s.Lifecycle("drain")
	var said []string
	for _, state := range []string{"Terminating", "Terminating"} {
		instance.Enter(state)
		err := l.Complete(t.Context(), "group-1", "i-1")
		if err == nil {
			t.Fatal("accepted in Terminating")
		}
		said = append(said, err.Error())
	}
	if !strings.Contains(said[0], "ValidationError: No active Lifecycle Action") || said[0] != said[1] {
		t.Errorf("refused with %q", said)
	}
	cloud.SetFault(awsnode.AutoScaling, awsnode.Throttle)
	if err := l.Complete(t.Context(), "group-1", "i-1"); err == nil || !strings.Contains(err.Error(), "Throttling") {
		t.Errorf("throttled: %v", err)
	}
	if n := cloud.Asked(awsnode.AutoScaling); n != 3 {
		t.Errorf("%d requests, want one for each call", n)
	}
	cloud.SetFault(awsnode.AutoScaling, awsnode.Hang)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Complete(short, "group-1", "i-1"); err == nil {
		t.Error("no error of a service that hangs")
	}
	cloud.SetFault(awsnode.AutoScaling, awsnode.None)
	instance.Enter("Terminating:Wait")
	if err := l.Complete(t.Context(), "group-1", "i-1"); err != nil {
		t.Error(err)
	}
	if states := instance.States(); states[len(states)-1] != "Terminating:Proceed" {
		t.Errorf("states %v", states)
	}
}

// counted are metrics as a node has them.
type counted struct {
	registry    *prometheus.Registry
	connections prometheus.Gauge
	latency     *prometheus.HistogramVec
	sent        *prometheus.CounterVec
	errors      *prometheus.CounterVec
	gaps        prometheus.Counter
}

func newCounted() *counted {
	c := &counted{registry: prometheus.NewRegistry(),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: metric.Connections}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: metric.MessageLatency, Buckets: []float64{0.5, 1, 2}},
			[]string{"namespace"}),
		sent:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.MessagesSent}, []string{"namespace"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.CommandErrors}, []string{"method", "code"}),
		gaps:   prometheus.NewCounter(prometheus.CounterOpts{Name: metric.GapsAnnounced})}
	c.registry.MustRegister(c.connections, c.latency, c.sent, c.errors, c.gaps)
	return c
}

// publisher runs one, every few milliseconds, until the answer is called.
func publisher(t *testing.T, s *Services, c *counted, group func() string) (log *safeBuffer, stop func()) {
	t.Helper()
	log = &safeBuffer{}
	ctx, cancel := context.WithCancel(t.Context())
	p := s.Publisher(Figures{Namespace: "Tideline/test", Gatherer: c.registry, Group: func(context.Context) string { return group() },
		Log: slog.New(slog.NewTextHandler(log, nil)), Interval: 250 * time.Millisecond})
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return log, stop
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
func (b *safeBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestFiguresAreWhatWasCounted(t *testing.T) {
	cloud, s, _ := open(t)
	c := newCounted()
	c.sent.WithLabelValues("chat").Add(7)
	_, stop := publisher(t, s, c, func() string { return "group-1" })
	await(t, "three sendings", func() bool { return len(cloud.Data(metric.CloudConnections)) >= 3 })
	c.connections.Set(12)
	c.sent.WithLabelValues("todos").Add(5)
	c.errors.WithLabelValues("subscribe", "100").Add(2)
	c.errors.WithLabelValues("subscribe", "103").Add(50)
	for namespace, seconds := range map[string][]float64{"chat": {0.1, 0.6, 0.7, 1.5}, "todos": {0.2, 5}} {
		for _, v := range seconds {
			c.latency.WithLabelValues(namespace).Observe(v)
		}
	}
	await(t, "the distribution is sent", func() bool { return len(cloud.Data(metric.CloudLatency)) > 0 })
	c.latency.WithLabelValues("chat").Observe(0.9)
	stop() // and the last one is sent at the end
	for name, want := range map[string]float64{metric.CloudDeliveries: 12, metric.CloudErrors: 2, metric.CloudGaps: 0, metric.CloudLatency: 0.5*2 + 1*3 + 2 + 4} {
		if got := cloud.Sum(name); got != want {
			t.Errorf("%s adds up to %v, want %v", name, got, want)
		}
	}
	for _, d := range cloud.Data("") {
		_, group := d.Dimensions[metric.DimensionGroup]
		if d.Namespace != "Tideline/test" || len(d.Dimensions) > 1 || group != (d.Name == metric.CloudConnections) {
			t.Errorf("%+v", d)
		}
	}
	connections := cloud.Data(metric.CloudConnections)
	if first, last := connections[0], connections[len(connections)-1]; first.Values[0] != 0 || last.Values[0] != 12 || last.Dimensions[metric.DimensionGroup] != "group-1" {
		t.Errorf("connections from %+v to %+v", first, last)
	}
}

func TestNoConnectionsWithoutAGroup(t *testing.T) {
	cloud, s, _ := open(t)
	_, _ = publisher(t, s, newCounted(), func() string { return "" })
	await(t, "other figures are sent", func() bool { return len(cloud.Data(metric.CloudGaps)) >= 2 })
	if d := cloud.Data(metric.CloudConnections); len(d) > 0 {
		t.Errorf("%+v", d)
	}
}

// Throttled, broken, deaf: the figures of the meantime come later with their own times, one warning is written, and the end comes in time.
func TestAnEndpointThatIsAwayCostsNothingButTheFigures(t *testing.T) {
	for name, fault := range map[string]awsnode.Fault{"throttles": awsnode.Throttle, "broken": awsnode.Broken, "hangs": awsnode.Hang} {
		t.Run(name, func(t *testing.T) {
			cloud, s, _ := open(t)
			c := newCounted()
			cloud.SetFault(awsnode.CloudWatch, fault)
			log, stop := publisher(t, s, c, func() string { return "group-1" })
			asked := cloud.Asked(awsnode.CloudWatch)
			await(t, "it is tried again", func() bool { return cloud.Asked(awsnode.CloudWatch) >= asked+3 })
			c.sent.WithLabelValues("chat").Add(3)
			cloud.SetFault(awsnode.CloudWatch, awsnode.None)
			await(t, "it is sent again", func() bool { return strings.Contains(log.String(), "sent to CloudWatch again") })
			await(t, "what was counted meanwhile", func() bool { return cloud.Sum(metric.CloudDeliveries) == 3 })
			if n := strings.Count(log.String(), "not sent"); n != 1 {
				t.Errorf("%d warnings:\n%s", n, log)
			}
			cloud.SetFault(awsnode.CloudWatch, fault)
			began := time.Now()
			stop()
			if took := time.Since(began); took > lastTimeout+time.Second {
				t.Errorf("the end took %v", took)
			}
		})
	}
}

func TestFiguresThatWaitAreBounded(t *testing.T) {
	cloud, s, _ := open(t)
	cloud.SetFault(awsnode.CloudWatch, awsnode.Broken)
	p := s.Publisher(Figures{Namespace: "Tideline/test", Gatherer: newCounted().registry, Group: func(context.Context) string { return "group-1" }, Log: slog.New(slog.DiscardHandler)})
	for i := range keptMost + 1 {
		p.send(t.Context(), 20*time.Millisecond)
		if want := min(i+1, keptMost); len(p.waiting) != want {
			t.Fatalf("%d intervals wait after %d, want %d", len(p.waiting), i+1, want)
		}
	}
	cloud.SetFault(awsnode.CloudWatch, awsnode.None)
	p.send(t.Context(), time.Minute)
	if got := len(cloud.Data(metric.CloudConnections)); got != keptMost || len(p.waiting) != 0 {
		t.Errorf("%d intervals were sent, %d wait", got, len(p.waiting))
	}
}

// What CloudWatch has read and refuses would be refused for ever.
func TestRefusedFiguresAreGivenUp(t *testing.T) {
	cloud, s, _ := open(t)
	c := newCounted()
	// The namespace is missing from what the stand-in sees as soon as it is empty.
	p := s.Publisher(Figures{Namespace: "x", Gatherer: c.registry, Group: func(context.Context) string { return "" }, Log: slog.New(slog.DiscardHandler)})
	p.Namespace = ""
	p.send(t.Context(), time.Minute)
	if len(p.waiting) != 0 || !p.failing || len(cloud.Wrong()) == 0 {
		t.Errorf("%d intervals wait, failing %v", len(p.waiting), p.failing)
	}
	p.Namespace = "x"
	p.send(t.Context(), time.Minute)
	if p.failing || len(cloud.Data(metric.CloudGaps)) != 1 {
		t.Errorf("failing %v, sent %d", p.failing, len(cloud.Data(metric.CloudGaps)))
	}
}

// CloudWatch takes 150 different values: 148 bounds and one above them are sent, one more bound is the most, one past it is not.
func TestAHistogramHasRoomForItsValues(t *testing.T) {
	for bounds, want := range map[int]int{valuesMost - 1: valuesMost, valuesMost: 0} {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: metric.MessageLatency, Buckets: prometheus.LinearBuckets(1, 1, bounds)})
		for i := range bounds + 1 {
			h.Observe(float64(i + 1))
		}
		r := prometheus.NewRegistry()
		r.MustRegister(h)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values, counts := newFigures().latency(families[0])
		if len(values) != want || len(counts) != want {
			t.Errorf("%d bounds: %d values, %d counts, want %d", bounds, len(values), len(counts), want)
		}
	}
}

func TestWaitsNest(t *testing.T) {
	if sendTimeout >= limit.MetricsInterval || lastTimeout >= sendTimeout {
		t.Error("a sending must end before the next begins, and the last must be short")
	}
	if keptMost*(len(sums)+len(gauges)+2) > 1000 {
		t.Error("what waits must fit into one request")
	}
	if n := len(sums) + len(gauges) + 2; n > 12 {
		t.Errorf("%d metrics: each costs money by the month", n)
	}
	seen := map[string]bool{}
	for _, s := range sums {
		if seen[s.cloud] {
			t.Error(fmt.Sprint(s.cloud, " is there twice"))
		}
		seen[s.cloud] = true
	}
}

// Each figure costs money by the month: a dozen, Connections among them.
func TestThereAreADozenFigures(t *testing.T) {
	const others = 2 // Connections and the latency
	if n := len(sums) + len(gauges) + others; n > 12 {
		t.Errorf("%d figures: fold or drop one", n)
	}
}
