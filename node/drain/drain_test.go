package drain

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// metadata is a stand-in for IMDSv2: tokens are required and can be revoked, items are 404 until they are set.
type metadata struct {
	mu     sync.Mutex
	token  string
	items  map[string]string
	broken bool
	asked  int
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	switch {
	case m.broken:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		if r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		io.WriteString(w, m.token)
	case r.Header.Get("X-aws-ec2-metadata-token") != m.token:
		w.WriteHeader(http.StatusUnauthorized)
	default:
		v, ok := m.items[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.WriteString(w, v)
	}
}

func (m *metadata) set(f func()) { m.mu.Lock(); f(); m.mu.Unlock() }

func (m *metadata) count() int { m.mu.Lock(); defer m.mu.Unlock(); return m.asked }

// start waits in the background; told gives the reason.
func start(t *testing.T) (m *metadata, told chan string, stop func() error) {
	t.Helper()
	m = &metadata{token: "t1", items: map[string]string{"/latest/meta-data/autoscaling/target-lifecycle-state": "InService"}}
	server := httptest.NewServer(m)
	ctx, cancel := context.WithCancel(context.Background())
	told, ended := make(chan string, 1), make(chan error, 1)
	w := NewWatcher(NewMetadata(server.URL), 5*time.Millisecond, slog.New(slog.NewTextHandler(io.Discard, nil)))
	go func() {
		reason, err := w.Wait(ctx)
		if err == nil {
			told <- reason
		}
		ended <- err
	}()
	stop = sync.OnceValue(func() error { cancel(); err := <-ended; server.Close(); return err })
	t.Cleanup(func() { stop() })
	return m, told, stop
}

// turns waits until the metadata has been asked that many times more.
func (m *metadata) turns(t *testing.T, n int) {
	t.Helper()
	until := m.count() + n
	for deadline := time.Now().Add(30 * time.Second); m.count() < until; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the metadata is not asked any more")
		}
	}
}

func TestWhatEndsAnInstance(t *testing.T) {
	for _, c := range []struct{ name, path, value, reason string }{
		{"scale-in", "/latest/meta-data/autoscaling/target-lifecycle-state", "Terminated", "target lifecycle state Terminated"},
		{"warm pool", "/latest/meta-data/autoscaling/target-lifecycle-state", "Warmed:Stopped", "target lifecycle state Warmed:Stopped"},
		{"spot", "/latest/meta-data/spot/instance-action", `{"action":"terminate"}`, "spot interruption"},
		{"rebalance", "/latest/meta-data/events/recommendations/rebalance", `{"noticeTime":"…"}`, "rebalance recommendation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, told, _ := start(t)
			m.turns(t, 10)
			select {
			case reason := <-told:
				t.Fatalf("told %q while in service", reason)
			default:
			}
			m.set(func() { m.items[c.path] = c.value })
			if got := <-told; got != c.reason {
				t.Errorf("told %q, want %q", got, c.reason)
			}
		})
	}
}

func TestATokenThatIsNoLongerGoodIsRenewed(t *testing.T) {
	m, told, _ := start(t)
	m.turns(t, 5)
	m.set(func() {
		m.token = "t2"
		m.items["/latest/meta-data/spot/instance-action"] = "{}"
	})
	<-told
}

func TestMetadataThatIsAwayIsAskedAgain(t *testing.T) {
	m, told, _ := start(t)
	m.turns(t, 5)
	m.set(func() { m.broken = true })
	m.turns(t, 10)
	m.set(func() { m.broken = false; m.items["/latest/meta-data/spot/instance-action"] = "{}" })
	<-told
}

func TestTheWaitEndsWithItsContext(t *testing.T) {
	_, _, stop := start(t)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
