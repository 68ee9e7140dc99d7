package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/redistest"
)

// ear is a node with a Control that runs, and what it was told.
type ear struct {
	*Control
	node *testNode
	stop func()

	mu      sync.Mutex
	revoked []Revocation
}

const testCheck = 200 * time.Millisecond

// startEar runs a Control until the end of the test, or stop, and returns when it can hear.
func startEar(t testing.TB, b *Bus, n *testNode, answer func(ctx context.Context, method string, params []byte) ([]byte, error)) *ear {
	t.Helper()
	e := &ear{node: n}
	e.Control = b.NewControl(n.Lease, ControlOptions{Answer: answer, CheckEvery: testCheck, Revoked: func(r Revocation) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.revoked = append(e.revoked, r)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("control of %s: %v", n.o.Node, err)
		}
	}()
	e.stop = func() { cancel(); <-done }
	t.Cleanup(e.stop)
	eventually(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // others may not hear yet, and are not waited for
		defer cancel()
		answers, _, err := b.Survey(ctx, "hello", nil)
		if _, ok := answers[n.Boot()]; !ok {
			return fmt.Errorf("%s doesn't hear yet: %w", n.o.Node, err)
		}
		return nil
	})
	return e
}

// echo answers with the node's name, the method and the parameters.
func echo(name string) func(context.Context, string, []byte) ([]byte, error) {
	return func(_ context.Context, method string, params []byte) ([]byte, error) {
		switch method {
		case "fail":
			return nil, errors.New("can't")
		case "much":
			return bytes.Repeat([]byte("x"), AnswerBytes), nil
		case "too much":
			return bytes.Repeat([]byte("x"), AnswerBytes+1), nil
		}
		return []byte(name + " " + method + " " + string(params)), nil
	}
}

func testSurvey(t *testing.T, o Options) {
	b := openTest(t, o)
	one, two := startNode(t, b, "one"), startNode(t, b, "two")
	startEar(t, b, one, echo("one"))
	startEar(t, b, two, echo("two"))
	deaf := startNode(t, b, "deaf") // alive, and nobody listens

	// survey asks until the named nodes have answered and the others are missing: a node that stands still doesn't answer in time, and is then named.
	survey := func(method string, params []byte, answering, silent string) map[string]Answer {
		t.Helper()
		byName := make(map[string]Answer)
		eventually(t, func() error {
			answers, missing, err := b.Survey(t.Context(), method, params)
			if err != nil {
				return err
			}
			clear(byName)
			for boot, a := range answers {
				byName[a.Node] = a
				if slices.ContainsFunc(missing, func(n NodeInfo) bool { return n.Boot == boot }) {
					t.Errorf("%s: %s has answered and is missing", method, a.Node)
				}
			}
			var absent []string
			for _, n := range missing {
				absent = append(absent, n.ID)
			}
			here := slices.Sorted(maps.Keys(byName))
			if strings.Join(here, " ") != answering || strings.Join(absent, " ") != silent {
				return fmt.Errorf("%s: %q answered, %q are missing; want %q and %q", method, here, absent, answering, silent)
			}
			return nil
		})
		return byName
	}
	for name, got := range survey("connections", []byte("of ann\x00"), "one two", "deaf") {
		if string(got.Data) != name+" connections of ann\x00" || got.Error != "" {
			t.Errorf("answer of %s: %+v", name, got)
		}
	}

	deaf.end()
	for method, want := range map[string]Answer{
		"fail":     {Error: "can't"},
		"much":     {Data: bytes.Repeat([]byte("x"), AnswerBytes)},
		"too much": {Error: "answer of 1048577 bytes, at most 1048576"},
	} {
		for name, got := range survey(method, nil, "one two", "") {
			if got.Error != want.Error || !bytes.Equal(got.Data, want.Data) {
				t.Errorf("%s: answer of %s: %q, %d bytes", method, name, got.Error, len(got.Data))
			}
		}
	}
}

func TestSurveyRefuses(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	method := string(bytes.Repeat([]byte("m"), methodBytes))
	if answers, missing, err := b.Survey(t.Context(), method, nil); err != nil || len(answers)+len(missing) != 0 {
		t.Errorf("of nobody: %v, %v, %v", answers, missing, err)
	}
	for name, tt := range map[string]struct {
		method string
		params []byte
		want   error
	}{
		"no method":       {"", nil, ErrInvalid},
		"method too long": {method + "m", nil, ErrInvalid},
		"params too long": {"m", make([]byte, limit.DataBytes), ErrTooLarge},
	} {
		_, _, err := b.Survey(t.Context(), tt.method, tt.params)
		t.Run(name, func(t *testing.T) { wantErr(t, err, tt.want) })
	}
}

// More requests than fit: those past the inbox are dropped and counted, their askers see the node as missing, and nothing blocks.
func TestControlInboxIsBounded(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	n := startNode(t, b, "one")
	blocked := make(chan struct{})
	release := sync.OnceFunc(func() { close(blocked) })
	e := startEar(t, b, n, func(_ context.Context, method string, _ []byte) ([]byte, error) {
		if method == "block" {
			<-blocked
		}
		return nil, nil
	})
	t.Cleanup(release)
	ask := func(id string) { e.take(fmt.Appendf(nil, `{"id":%q,"method":"block","ms":2500}`, id)) }
	for i := range controlWorkers {
		ask(fmt.Sprint("working", i))
	}
	eventually(t, func() error {
		if waiting := len(e.inbox); waiting > 0 {
			return fmt.Errorf("%d not taken yet", waiting)
		}
		return nil
	})
	for i := range controlInbox {
		ask(fmt.Sprint("waiting", i))
		ask(fmt.Sprint("waiting", i)) // heard twice, taken once
	}
	if e.Dropped() != 0 {
		t.Errorf("%d dropped before the inbox was full", e.Dropped())
	}
	ask("one too many")
	if e.Dropped() != 1 {
		t.Errorf("%d dropped, want 1", e.Dropped())
	}
	release()
}

// wantRefused waits until a node refuses the user's tokens.
func (e *ear) wantRefused(t testing.TB, user string) {
	t.Helper()
	eventually(t, func() error {
		if !e.Refuses(user, "", "", time.Now().Add(-time.Minute)) {
			return fmt.Errorf("%s doesn't refuse %s", e.node.o.Node, user)
		}
		return nil
	})
}

func testRevocations(t *testing.T, o Options) {
	b := openTest(t, o)
	one, two := startEar(t, b, startNode(t, b, "one"), nil), startEar(t, b, startNode(t, b, "two"), nil)
	now := time.Now()
	for _, r := range []Revocation{{User: "ann"}, {Session: "s1"}, {Token: "t1", Before: now.Add(time.Minute)}} {
		if err := b.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []*ear{one, two} {
		e.wantRefused(t, "ann")
		eventually(t, func() error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if len(e.revoked) != 3 {
				return fmt.Errorf("told of %d", len(e.revoked))
			}
			return nil
		})
		before, after := now.Add(-time.Second), now.Add(testTimeout)
		for name, tt := range map[string]struct {
			user, session, token string
			issued               time.Time
			want                 bool
		}{
			"user":             {"ann", "s0", "t0", before, true},
			"user, since":      {"ann", "s0", "t0", after, false},
			"session":          {"bob", "s1", "t0", before, true},
			"token":            {"bob", "s0", "t1", now.Add(time.Minute), true},
			"token, since":     {"bob", "s0", "t1", now.Add(time.Minute + 1), false},
			"somebody else":    {"bob", "s0", "t0", before, false},
			"user is no token": {"t1", "ann", "s1", before, false},
			"anonymous":        {"", "", "", before, false},
		} {
			if got := e.Refuses(tt.user, tt.session, tt.token, tt.issued); got != tt.want {
				t.Errorf("%s: refused %v, want %v", name, got, tt.want)
			}
		}
	}

	// A node that comes later, or was away, learns what it missed.
	two.stop()
	if err := b.Revoke(t.Context(), Revocation{User: "eve"}); err != nil {
		t.Fatal(err)
	}
	three := startEar(t, b, startNode(t, b, "three"), nil)
	three.wantRefused(t, "ann")
	three.wantRefused(t, "eve")

	// Redis forgets: the nodes tell it again, once for all of them, and a node that comes now knows all.
	if err := b.client.Unlink(t.Context(), append(b.metaKeys(revocationChannel), b.key(keyStream, revocationChannel))...).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		pubs, _, err := b.History(t.Context(), revocationChannel, Page{Limit: -1})
		if len(pubs) != 4 {
			return fmt.Errorf("%d revocations in the channel, %v", len(pubs), err)
		}
		return nil
	})
	four := startEar(t, b, startNode(t, b, "four"), nil)
	for _, user := range []string{"ann", "eve"} {
		four.wantRefused(t, user)
	}
	waitFor(t, 2*testCheck)
	if pubs, _, err := b.History(t.Context(), revocationChannel, Page{Limit: -1}); len(pubs) != 4 {
		t.Errorf("%d revocations in the channel (%v), want each once", len(pubs), err)
	}
	if three.Checked().IsZero() || time.Since(three.Checked()) > testTimeout {
		t.Errorf("checked %v", three.Checked())
	}
}

// More than one page of history: a node that starts reads them all.
func TestRevocationsPastOnePage(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	const many = limit.HistoryPage + 1
	var revokers sync.WaitGroup
	for c := range 4 {
		revokers.Go(func() {
			for i := c; i < many; i += 4 {
				if err := b.Revoke(t.Context(), Revocation{User: fmt.Sprint("user", i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	revokers.Wait()
	e := startEar(t, b, startNode(t, b, "one"), nil)
	for i := range many {
		e.wantRefused(t, fmt.Sprint("user", i))
	}
}

func TestRevocationsEnd(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var ahead time.Duration
	b := openTest(t, Options{URL: redistest.Start(t).URL(), Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(ahead)
	}})
	e := startEar(t, b, startNode(t, b, "one"), nil)
	if err := b.Revoke(t.Context(), Revocation{User: "ann"}); err != nil {
		t.Fatal(err)
	}
	e.wantRefused(t, "ann")
	mu.Lock()
	ahead = limit.TokenTTL + limit.TokenJitter + time.Second
	mu.Unlock()
	eventually(t, func() error {
		e.Control.mu.Lock()
		defer e.Control.mu.Unlock()
		if left := slices.Collect(maps.Keys(e.bySubj)); len(left) > 0 {
			return fmt.Errorf("still known: %q", left)
		}
		return nil
	})
}

func TestRevokeRefuses(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: "redis://127.0.0.1:1"})
	now := time.Now()
	for name, tt := range map[string]struct {
		r    Revocation
		want error
	}{
		"nobody":           {Revocation{}, ErrInvalid},
		"two at once":      {Revocation{User: "a", Session: "b"}, ErrInvalid},
		"too long a life":  {Revocation{User: "a", Before: now, Until: now.Add(RevocationTTL + 1)}, ErrInvalid},
		"the longest life": {Revocation{User: "a", Before: now, Until: now.Add(RevocationTTL)}, ErrUnavailable},
		"subject too long": {Revocation{Token: string(make([]byte, subjectBytes+1))}, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			wantErr(t, b.Revoke(ctx, tt.r), tt.want)
		})
	}
	if RevocationTTL < limit.TokenTTL+limit.TokenJitter {
		t.Error("a revocation must be remembered until the tokens have expired")
	}
}
