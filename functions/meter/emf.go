package meter

import (
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"

	"tideline/shared/metric"
)

// EMF limits: CloudWatch reads at most this many values of one metric, and metrics, in one line.
const (
	emfValues  = 100
	emfMetrics = 100
)

// FlushEvery is how long distributions are gathered at most while invocations follow one another; what counts (Add) is written at the end of its
// invocation. A sandbox that is thrown away loses distributions of at most this long.
const FlushEvery = 5 * time.Second

// EMF gathers measurements and writes them as CloudWatch embedded metric format. It is safe for concurrent use.
type EMF struct {
	namespace, function string
	now                 func() time.Time

	mu      sync.Mutex
	out     io.Writer
	groups  map[string]*group // by labels
	order   []string
	counted bool
	full    bool
	last    time.Time
}

// group is what has the same labels, and so shares a line.
type group struct {
	names, values []string
	sums          map[string]float64
	lists         map[string][]float64
}

// NewEMF writes lines to out, which in Lambda is standard output. Now is nil for the real clock.
func NewEMF(out io.Writer, namespace, function string, now func() time.Time) *EMF {
	if now == nil {
		now = time.Now
	}
	return &EMF{namespace: namespace, function: function, now: now, out: out, groups: map[string]*group{}}
}

func (e *EMF) groupLocked(labels []string) *group {
	k := key(labels)
	g, ok := e.groups[k]
	if !ok {
		g = &group{sums: map[string]float64{}, lists: map[string][]float64{}}
		g.names, g.values = split(labels)
		e.groups[k] = g
		e.order = append(e.order, k)
	}
	return g
}

// Add counts n.
func (e *EMF) Add(name string, n float64, labels ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.groupLocked(labels).sums[name] += n
	e.counted = true
}

// Observe records one value of a distribution.
func (e *EMF) Observe(name string, value float64, labels ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.groupLocked(labels)
	if len(g.lists[name]) == emfValues { // Flush comes too seldom: an invocation that measures a lot
		_ = e.flushLocked()
		g = e.groupLocked(labels)
	}
	g.lists[name] = append(g.lists[name], value)
	e.full = e.full || len(g.lists[name]) == emfValues
}

// Flush writes what was gathered, if something was counted, a list is full, or FlushEvery has passed. It is called at the end of each invocation.
func (e *EMF) Flush() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.counted && !e.full && e.now().Sub(e.last) < FlushEvery {
		return nil
	}
	return e.flushLocked()
}

func (e *EMF) flushLocked() error {
	e.last, e.counted, e.full = e.now(), false, false
	var lines []byte
	for _, k := range e.order {
		b, err := json.Marshal(e.line(e.groups[k]))
		if err != nil { // NaN or infinity: nothing that could be drawn
			continue
		}
		lines = append(append(lines, b...), '\n')
	}
	e.groups, e.order = map[string]*group{}, nil
	if len(lines) == 0 {
		return nil
	}
	_, err := e.out.Write(lines)
	return err
}

type emfMetric struct {
	Name string
	Unit string
}

func (e *EMF) line(g *group) map[string]any {
	doc := map[string]any{metric.DimensionFunction: e.function}
	dimensions := append([]string{metric.DimensionFunction}, g.names...)
	for i, n := range g.names {
		doc[n] = g.values[i]
	}
	metrics := make([]emfMetric, 0, len(g.sums)+len(g.lists))
	for name, v := range g.sums {
		doc[name] = v
		metrics = append(metrics, emfMetric{name, "Count"})
	}
	for name, v := range g.lists {
		doc[name] = v
		metrics = append(metrics, emfMetric{name, unit(name)})
	}
	if len(metrics) > emfMetrics {
		metrics = metrics[:emfMetrics]
	}
	doc["_aws"] = map[string]any{"Timestamp": e.now().UnixMilli(), "CloudWatchMetrics": []any{map[string]any{
		"Namespace": e.namespace, "Dimensions": [][]string{dimensions}, "Metrics": metrics}}}
	return doc
}

func unit(name string) string {
	if strings.HasSuffix(name, "_seconds") {
		return "Seconds"
	}
	return "None"
}
