package bus

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"tideline/test/leak"
	"tideline/test/redistest"
)

func TestMain(m *testing.M) {
	LogDriver(slog.New(slog.DiscardHandler))
	// These tests wait for servers, leases and pauses more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	leak.Main(m)
}

// testTimeout bounds every wait of a test.
const testTimeout = 30 * time.Second

// openTest opens a bus that is closed with the test.
func openTest(t testing.TB, o Options) *Bus {
	t.Helper()
	if o.Stage == "" {
		o.Stage = "test"
	}
	if o.PoolSize == 0 {
		o.PoolSize = 8
	}
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// eachServer runs one suite on every kind of Redis that the bus works with.
func eachServer(t *testing.T, suite func(t *testing.T, o Options)) {
	t.Helper()
	kinds := map[string]func(t *testing.T) string{
		"miniredis": func(t *testing.T) string {
			m := miniredis.RunT(t)
			m.ClockTTL(true)
			return "redis://" + m.Addr()
		},
		"redis":   func(t *testing.T) string { return redistest.Start(t).URL() },
		"cluster": func(t *testing.T) string { return redistest.StartCluster(t).URL() },
	}
	for name, start := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite(t, Options{URL: start(t)})
		})
	}
}

// eventually polls until f answers nil.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("still not after %v: %v", testTimeout, err)
		case <-tick.C:
		}
	}
}

func mustPublish(t testing.TB, b *Bus, p Publication) Result {
	t.Helper()
	res, err := b.Publish(t.Context(), p)
	if err != nil {
		t.Fatalf("publish on %s: %v", p.Channel, err)
	}
	return res
}

// keep is a history that outlives every test.
var keep = History{Size: 1000, TTL: time.Hour}

func text(channel, format string, args ...any) Publication {
	return Publication{Channel: channel, Data: fmt.Appendf(nil, format, args...), History: keep}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}
