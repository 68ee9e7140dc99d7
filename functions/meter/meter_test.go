package meter_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/functions/meter"
	"tideline/shared/metric"
)

type line struct {
	AWS struct {
		Timestamp         int64
		CloudWatchMetrics []struct {
			Namespace  string
			Dimensions [][]string
			Metrics    []struct{ Name, Unit string }
		}
	} `json:"_aws"`
	Function string    `json:"function"`
	Kind     string    `json:"kind"`
	Tasks    float64   `json:"tasks_created_total"`
	Latency  []float64 `json:"request_latency_seconds"`
}

func lines(t *testing.T, b *bytes.Buffer) []line {
	t.Helper()
	var out []line
	for raw := range strings.Lines(b.String()) {
		var l line
		if err := json.Unmarshal([]byte(raw), &l); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		out = append(out, l)
	}
	b.Reset()
	return out
}

func TestEMFLine(t *testing.T) {
	var b bytes.Buffer
	now := time.UnixMilli(1_800_000_000_123)
	e := meter.NewEMF(&b, "Tideline", "tasks", func() time.Time { return now })
	e.Add(metric.TasksCreated, 2, "kind", "import")
	e.Add(metric.TasksCreated, 1, "kind", "import")
	e.Observe(metric.RequestLatency, 0.25)
	e.Observe(metric.RequestLatency, math.NaN(), "kind", "odd") // can't be written, and takes nothing with it
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	got := lines(t, &b)
	if len(got) != 2 {
		t.Fatalf("%d lines", len(got))
	}
	l := got[0]
	cw := l.AWS.CloudWatchMetrics[0]
	if l.AWS.Timestamp != now.UnixMilli() || cw.Namespace != "Tideline" || strings.Join(cw.Dimensions[0], ",") != "function,kind" ||
		cw.Metrics[0].Name != metric.TasksCreated || cw.Metrics[0].Unit != "Count" || l.Tasks != 3 || l.Kind != "import" || l.Function != "tasks" {
		t.Errorf("%+v", l)
	}
	if l := got[1]; len(l.Latency) != 1 || l.AWS.CloudWatchMetrics[0].Metrics[0].Unit != "Seconds" {
		t.Errorf("%+v", l)
	}
}

func TestSuccessesAreGatheredAndCountsAreNot(t *testing.T) {
	var b bytes.Buffer
	now := time.UnixMilli(1_800_000_000_000)
	e := meter.NewEMF(&b, "Tideline", "todos", func() time.Time { return now })
	invoke := func(measure func()) int {
		t.Helper()
		measure()
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
		return len(lines(t, &b))
	}
	latency := func() { e.Observe(metric.RequestLatency, 0.1) }
	if n := invoke(latency); n != 1 {
		t.Errorf("the first invocation wrote %d lines, want 1", n)
	}
	for range 50 {
		if n := invoke(latency); n != 0 {
			t.Errorf("an invocation within %v wrote %d lines", meter.FlushEvery, n)
		}
	}
	if n := invoke(func() { e.Add(metric.RequestErrors, 1) }); n != 1 {
		t.Errorf("an error wrote %d lines, want 1 at once", n)
	}
	for range 99 {
		invoke(latency)
	}
	if n := invoke(latency); n != 1 {
		t.Errorf("a full list wrote %d lines", n)
	}
	invoke(latency)
	now = now.Add(meter.FlushEvery)
	if n := invoke(func() {}); n != 1 {
		t.Errorf("after %v: %d lines", meter.FlushEvery, n)
	}
	for range 250 { // one invocation that measures more than a line may hold
		latency()
	}
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, l := range lines(t, &b) {
		if len(l.Latency) > 100 {
			t.Errorf("a line with %d values", len(l.Latency))
		}
		total += len(l.Latency)
	}
	now = now.Add(meter.FlushEvery)
	_ = e.Flush()
	for _, l := range lines(t, &b) {
		total += len(l.Latency)
	}
	if total != 250 {
		t.Errorf("%d of 250 values were written", total)
	}
}

func TestPrometheus(t *testing.T) {
	var log bytes.Buffer
	p := meter.NewPrometheus("tasks", slog.New(slog.NewTextHandler(&log, nil)))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				p.Add(metric.TasksCreated, 1, "kind", "export")
				p.Observe(metric.RequestLatency, 0.02)
			}
		})
	}
	wg.Wait()
	p.Add(metric.TasksCreated, 1) // other labels: refused, said once, and nothing breaks
	p.Add(metric.TasksCreated, 1)
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text, _ := io.ReadAll(w.Body)
	for _, want := range []string{`tasks_created_total{function="tasks",kind="export"} 800`, `request_latency_seconds_count{function="tasks"} 800`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if n := strings.Count(log.String(), "metric refused"); n != 1 {
		t.Errorf("said %d times: %s", n, &log)
	}
}
