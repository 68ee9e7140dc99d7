// Package otlp records spans and sends them to a collector, by OTLP over HTTP, where the standard environment variables ask for it.
//
// It is linked into nodes and the local command, not into functions: docs/adr/0004 says why. A collector that is slow or away costs spans and
// nothing else: they wait in a bounded queue, and what doesn't fit is dropped.
package otlp

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"tideline/shared/trace"
)

// Bounds of the exporter. The queue's is the SDK's: OTEL_BSP_MAX_QUEUE_SIZE, 2,048 spans.
const (
	// exportTimeout bounds one sending, its retries included.
	exportTimeout = 10 * time.Second
	// closeTimeout bounds the last sending, which the end of the process waits for.
	closeTimeout = 3 * time.Second
	// complainEvery is how often a collector that is away is complained of, at most.
	complainEvery = time.Minute
)

// Settings say where spans are sent. The zero Settings send nothing.
type Settings struct{ URL string }

// Variables that Parse reads, with their help. The SDK reads the other standard ones itself: OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER,
// OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_….
const (
	EndpointVariable = "OTEL_EXPORTER_OTLP_ENDPOINT"
	ExporterVariable = "OTEL_TRACES_EXPORTER"
	tracesVariable   = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	protocolVariable = "OTEL_EXPORTER_OTLP_PROTOCOL"
	disabledVariable = "OTEL_SDK_DISABLED"
	defaultEndpoint  = "http://localhost:4318"
)

// Parse reads the environment. Off is the default: spans are sent where an endpoint is named, or OTEL_TRACES_EXPORTER says otlp.
func Parse(getenv func(string) string) (Settings, error) {
	get := func(name string) string { return strings.TrimSpace(getenv(name)) }
	exporter := get(ExporterVariable)
	endpoint, full := get(EndpointVariable), get(tracesVariable)
	var errs []error
	switch exporter {
	case "", "otlp", "none":
	default:
		errs = append(errs, fmt.Errorf("%s: %q is neither otlp nor none", ExporterVariable, exporter))
	}
	if p := get(protocolVariable); p != "" && p != "http/protobuf" {
		errs = append(errs, fmt.Errorf("%s: %q: only http/protobuf is spoken", protocolVariable, p))
	}
	for name, v := range map[string]string{EndpointVariable: endpoint, tracesVariable: full} {
		if u, err := url.Parse(v); v != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			errs = append(errs, fmt.Errorf("%s: %q is not an address such as %s", name, v, defaultEndpoint))
		}
	}
	if len(errs) > 0 {
		return Settings{}, errors.Join(errs...)
	}
	if exporter == "none" || exporter == "" && endpoint == "" && full == "" || strings.EqualFold(get(disabledVariable), "true") {
		return Settings{}, nil
	}
	return Settings{URL: cmp.Or(full, strings.TrimSuffix(cmp.Or(endpoint, defaultEndpoint), "/")+"/v1/traces")}, nil
}

// Tracing records. Its zero value records nothing.
type Tracing struct {
	Provider trace.Provider // nil: off
	provider *sdk.TracerProvider
	log      *slog.Logger
}

// Open begins to record, as a service (unless OTEL_SERVICE_NAME says otherwise) of which this is one instance. Nothing is connected to. The SDK reports its
// errors to one handler of the process: log is where the last one opened sends them.
func Open(ctx context.Context, s Settings, service, instance, version string, log *slog.Logger) (Tracing, error) {
	if s.URL == "" {
		return Tracing{}, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(s.URL), otlptracehttp.WithTimeout(exportTimeout))
	if err != nil {
		return Tracing{}, fmt.Errorf("%s: %w", EndpointVariable, err)
	}
	ours := resource.NewSchemaless(attribute.String("service.name", service), attribute.String("service.instance.id", instance), attribute.String("service.version", version))
	environment, err := resource.New(ctx, resource.WithFromEnv())
	if err != nil {
		return Tracing{}, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	all, err := resource.Merge(ours, environment) // the environment's win
	if err != nil {
		return Tracing{}, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(&complainer{log: log})
	p := sdk.NewTracerProvider(sdk.WithBatcher(exporter, sdk.WithExportTimeout(exportTimeout)), sdk.WithResource(all), sdk.WithIDGenerator(ids{}))
	return Tracing{Provider: p, provider: p, log: log}, nil
}

// Close sends what waits and ends, within a few seconds. What can't be sent is lost, and logged.
func (t Tracing) Close() {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("the last spans were not sent", "error", err)
	}
}

// complainer logs that spans are lost, and not each time.
type complainer struct {
	log  *slog.Logger
	last atomic.Int64 // Unix nanoseconds
}

func (c *complainer) Handle(err error) {
	now, last := time.Now().UnixNano(), c.last.Load()
	if now-last >= int64(complainEvery) && c.last.CompareAndSwap(last, now) {
		c.log.Warn("spans not sent", "error", err)
	}
}

// ids are random, and a trace's begins with the time, in seconds since 1970: X-Ray takes no others.
type ids struct{}

func (ids) NewIDs(context.Context) (t oteltrace.TraceID, s oteltrace.SpanID) {
	for !s.IsValid() {
		_, _ = rand.Read(t[4:]) // it never fails
		_, _ = rand.Read(s[:])
	}
	binary.BigEndian.PutUint32(t[:], uint32(time.Now().Unix()))
	return t, s
}

func (ids) NewSpanID(context.Context, oteltrace.TraceID) (s oteltrace.SpanID) {
	for !s.IsValid() {
		_, _ = rand.Read(s[:])
	}
	return s
}
