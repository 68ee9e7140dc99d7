// Package otlptest is a collector for tests: it takes spans by OTLP over HTTP, as OpenTelemetry's own definitions decode them, and hands them out by trace.
package otlptest

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"
)

// T is the part of testing.TB that this package needs.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

const (
	// bodyBytes is the longest request that is taken.
	bodyBytes = 16 << 20
	// patience bounds the wait for spans.
	patience = time.Minute
)

// Span is one span, with what says where it came from.
type Span struct {
	Name, Kind                 string // kind as the definitions name it: SPAN_KIND_SERVER
	TraceID, ID, Parent        string // hexadecimal; a root's parent is empty
	Start, End                 time.Time
	Failed                     string            // why, or empty
	Attributes                 map[string]string // of the span
	Service, Instance, Version string            // of its process
}

// Collector takes spans until the test ends. It is safe for concurrent use.
type Collector struct {
	URL string // for OTEL_EXPORTER_OTLP_ENDPOINT

	mu       sync.Mutex
	spans    []Span
	requests int
	broken   error
}

// Start starts a collector on a free port.
func Start(t T) *Collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("otlptest: %v", err)
	}
	c := &Collector{URL: "http://" + l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", c.take)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
		if c.broken != nil {
			t.Fatalf("otlptest: a request that can't be read: %v", c.broken)
		}
	})
	return c
}

func (c *Collector) take(w http.ResponseWriter, r *http.Request) {
	spans, err := read(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	if err != nil {
		c.broken = err
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.spans = append(c.spans, spans...)
	w.Header().Set("Content-Type", "application/x-protobuf") // of an empty response
}

func read(r *http.Request) ([]Span, error) {
	if kind := r.Header.Get("Content-Type"); kind != "application/x-protobuf" {
		return nil, fmt.Errorf("content type %q", kind)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, bodyBytes))
	if err != nil {
		return nil, err
	}
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		if body, err = io.ReadAll(io.LimitReader(z, bodyBytes)); err != nil {
			return nil, err
		}
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	var spans []Span
	for _, resource := range request.GetResourceSpans() {
		of := attributes(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				spans = append(spans, Span{Name: s.GetName(), Kind: s.GetKind().String(), TraceID: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()),
					Parent: hex.EncodeToString(s.GetParentSpanId()), Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
					Failed: s.GetStatus().GetMessage(), Attributes: attributes(s.GetAttributes()),
					Service: of["service.name"], Instance: of["service.instance.id"], Version: of["service.version"]})
			}
		}
	}
	return spans, nil
}

func attributes(list []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			all[a.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			all[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		default:
			all[a.GetKey()] = a.GetValue().String()
		}
	}
	return all
}

// Requests counts what came, spans or not.
func (c *Collector) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}

// Trace answers the spans of a trace, all traces for "", in the order in which they came.
func (c *Collector) Trace(id string) []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []Span
	for _, s := range c.spans {
		if id == "" || s.TraceID == id {
			found = append(found, s)
		}
	}
	return found
}

// Await waits for at least n spans of a trace: processes send in batches, some seconds apart.
func (c *Collector) Await(t T, id string, n int) []Span {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		found := c.Trace(id)
		if len(found) >= n {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d spans of trace %s within %v: %+v", len(found), n, id, patience, found)
		}
	}
}
