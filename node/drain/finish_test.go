package drain

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// scene is a drained instance and its group, which accepts nothing until it is told to.
type scene struct {
	metadata *metadata
	mu       sync.Mutex
	tries    []Instance
	accepts  bool
	log      bytes.Buffer // read when Finish has ended
	ended    chan error
	end      func()
}

func finishing(t *testing.T) *scene {
	t.Helper()
	s := &scene{metadata: &metadata{token: "t1", items: map[string]string{
		"/latest/meta-data/autoscaling/target-lifecycle-state":      "InService",
		"/latest/meta-data/instance-id":                             "i-1",
		"/latest/meta-data/placement/availability-zone":             "eu-west-1a",
		"/latest/meta-data/tags/instance/aws:autoscaling:groupName": "group-1",
	}}, ended: make(chan error, 1)}
	server := httptest.NewServer(s.metadata)
	ctx, cancel := context.WithCancel(t.Context())
	f := &Finisher{Metadata: NewMetadata(server.URL), Log: slog.New(slog.NewTextHandler(&s.log, nil)), first: time.Millisecond, most: 4 * time.Millisecond,
		Complete: func(_ context.Context, at Instance) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tries = append(s.tries, at)
			if !s.accepts {
				return errors.New("ValidationError: No active Lifecycle Action found")
			}
			return nil
		}}
	go func() { s.ended <- f.Finish(ctx); close(s.ended) }()
	s.end = cancel
	t.Cleanup(func() { cancel(); <-s.ended; server.Close() })
	return s
}

func (s *scene) tried() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.tries) }

func (s *scene) first() Instance { s.mu.Lock(); defer s.mu.Unlock(); return s.tries[0] }

func (s *scene) state(path, value string) {
	s.metadata.set(func() { s.metadata.items["/latest/meta-data/"+path] = value })
}

// more waits for n more attempts.
func (s *scene) more(t *testing.T, n int) {
	t.Helper()
	until := s.tried() + n
	for deadline := time.Now().Add(30 * time.Second); s.tried() < until; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d attempts, waiting for %d", s.tried(), until)
		}
	}
}

func TestTheActionIsTriedUntilItIsAccepted(t *testing.T) {
	s := finishing(t)
	s.metadata.turns(t, 10)
	if n := s.tried(); n != 0 {
		t.Fatalf("%d attempts for an instance that stays", n)
	}
	s.state("autoscaling/target-lifecycle-state", "Terminated")
	s.more(t, 5)
	s.mu.Lock()
	s.accepts = true
	s.mu.Unlock()
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	if at := s.first(); at != (Instance{"i-1", "eu-west-1a", "group-1"}) {
		t.Errorf("completed %+v", at)
	}
	if n := strings.Count(s.log.String(), "not completed yet"); n != 1 {
		t.Errorf("the same refusal is written %d times", n)
	}
}

// Nothing is known of the group when its tag is not there, and everything when it appears.
func TestTheGroupIsReadWhenItsTagAppears(t *testing.T) {
	s := finishing(t)
	s.metadata.set(func() { delete(s.metadata.items, "/latest/meta-data/tags/instance/aws:autoscaling:groupName") })
	s.state("autoscaling/target-lifecycle-state", "Terminated")
	s.metadata.turns(t, 12)
	if n := s.tried(); n != 0 {
		t.Fatalf("%d attempts without a group", n)
	}
	s.state("tags/instance/aws:autoscaling:groupName", "group-2")
	s.more(t, 1)
	if at := s.first(); at.Group != "group-2" {
		t.Errorf("completed %+v", at)
	}
}

func TestMetadataThatGoesAwayDoesNotKeepTheActionOpen(t *testing.T) {
	s := finishing(t)
	s.state("autoscaling/target-lifecycle-state", "Terminated")
	s.more(t, 1)
	s.metadata.set(func() { s.metadata.broken = true })
	s.more(t, 3)
}

func TestTheAttemptsEndWithTheirContext(t *testing.T) {
	s := finishing(t)
	s.state("autoscaling/target-lifecycle-state", "Terminated")
	s.more(t, 1)
	s.end()
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
