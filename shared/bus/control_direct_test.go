package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tideline/test/redistest"
)

// startAsked runs a Control that answers direct messages, until the end of the test or the returned stop, and returns when it can be asked.
func startAsked(t testing.TB, b *Bus, name string, asked func(context.Context, []byte) ([]byte, error)) (c *Control, stop func()) {
	t.Helper()
	c = b.NewControl(b.NewLease(LeaseOptions{Node: name}), ControlOptions{Asked: asked})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("control of %s: %v", name, err)
		}
	})
	t.Cleanup(stop)
	eventually(t, func() error {
		n, err := b.send(t.Context(), c.Address(), direct{ID: "hello"}, nil) // an answer that nobody waits for
		if n == 0 {
			return fmt.Errorf("%s is not there yet: %v", name, err)
		}
		return nil
	})
	return c, stop
}

func TestDirectMessages(t *testing.T) { eachServer(t, testDirectMessages) }

func testDirectMessages(t *testing.T, o Options) {
	b := openTest(t, o)
	asker, _ := startAsked(t, b, "asker", nil)
	answerer, stop := startAsked(t, openTest(t, o), "answerer", func(_ context.Context, data []byte) ([]byte, error) {
		switch string(data) {
		case "fail":
			return nil, errors.New("can't")
		case "much":
			return bytes.Repeat([]byte("x"), DirectBytes), nil
		case "too much":
			return bytes.Repeat([]byte("x"), DirectBytes+1), nil
		}
		return append([]byte("heard "), data...), nil
	})
	for _, data := range [][]byte{nil, []byte("a"), []byte("two\nlines\x00\xff"), bytes.Repeat([]byte("\n"), DirectBytes)} {
		got, err := asker.Ask(t.Context(), answerer.Address(), data)
		if want := append([]byte("heard "), data...); len(want) > DirectBytes {
			if err == nil {
				t.Error("an answer past the limit came")
			}
		} else if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%.20q: %.20q, %v", data, got, err)
		}
	}
	if got, err := asker.Ask(t.Context(), answerer.Address(), []byte("much")); len(got) != DirectBytes {
		t.Errorf("the longest answer: %d bytes, %v", len(got), err)
	}
	for question, want := range map[string]string{"fail": "can't", "too much": "answer of 1048577 bytes, at most 1048576"} {
		_, err := asker.Ask(t.Context(), answerer.Address(), []byte(question))
		if said := (*AskedError)(nil); !errors.As(err, &said) || said.Text != want {
			t.Errorf("%s: %v", question, err)
		}
	}
	_, err := asker.Ask(t.Context(), answerer.Address(), make([]byte, DirectBytes+1))
	wantErr(t, err, ErrTooLarge)

	stop()
	started := time.Now()
	eventually(t, func() error { // the server may learn of the closed connection a little later
		_, err := asker.Ask(t.Context(), answerer.Address(), nil)
		if !errors.Is(err, ErrNobody) {
			return err
		}
		return nil
	})
	for _, address := range []string{"", "nobody", "0123456789abcdef", "0123456789ABCDEF", "0123456789abcdef0", "}:c:$control"} {
		_, err := asker.Ask(t.Context(), address, nil)
		wantErr(t, err, ErrNobody)
	}
	if took := time.Since(started); took > testTimeout/2 {
		t.Errorf("nobody's answer took %v", took)
	}
}

// Who has just begun, or whose connection is being rebuilt, asks when it can hear the answer: it would wait in vain otherwise.
func TestAskWaitsUntilItHears(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := openTest(t, Options{URL: server.URL()})
	answerer, _ := startAsked(t, b, "answerer", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	for range 20 {
		c := b.NewControl(b.NewLease(LeaseOptions{Node: "asker"}), ControlOptions{})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		if _, err := c.Ask(t.Context(), answerer.Address(), nil); err != nil {
			t.Error(err)
		}
		controlEar{c}.Interrupted(directChannel + c.Address())
		short, end := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := c.Ask(short, answerer.Address(), nil)
		wantErr(t, err, ErrUnavailable)
		end()
		controlEar{c}.Confirmed(directChannel + c.Address())
		if _, err := c.Ask(t.Context(), answerer.Address(), nil); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A message that is heard twice is answered once; one that is not answered is an error at the deadline, and a late answer nobody's.
func TestDirectMessageOnce(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	var asked atomic.Int32
	release := make(chan struct{})
	asker, _ := startAsked(t, b, "asker", nil)
	answerer, _ := startAsked(t, b, "answerer", func(ctx context.Context, data []byte) ([]byte, error) {
		asked.Add(1)
		if string(data) == "slow" {
			<-release
			if _, ok := ctx.Deadline(); !ok {
				t.Error("no deadline")
			}
		}
		return nil, nil
	})
	for range 2 {
		if _, err := b.send(t.Context(), answerer.Address(), direct{ID: "same", From: asker.Address(), Millis: 1000}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := asker.Ask(t.Context(), answerer.Address(), nil); err != nil { // heard after both
		t.Fatal(err)
	}
	wasAsked := func(n int32) {
		t.Helper()
		eventually(t, func() error { // each is answered in a goroutine of its own
			if got := asked.Load(); got < n {
				return fmt.Errorf("asked %d times, want %d", got, n)
			}
			return nil
		})
	}
	wasAsked(2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gaveUp := make(chan error, 1)
	go func() { _, err := asker.Ask(ctx, answerer.Address(), []byte("slow")); gaveUp <- err }()
	wasAsked(3)
	cancel()
	wantErr(t, <-gaveUp, ErrUnavailable)
	close(release)
	if _, err := asker.Ask(t.Context(), answerer.Address(), nil); err != nil {
		t.Errorf("after a late answer: %v", err)
	}
	if n := asked.Load(); n != 4 {
		t.Errorf("asked %d times, want the repeated one once and the three others", n)
	}
	asker.direct.mu.Lock()
	defer asker.direct.mu.Unlock()
	if n := len(asker.direct.waiting); n != 0 {
		t.Errorf("%d are still waited for", n)
	}
}

// As many as a node may answer at once are taken, by number and by bytes; one more is dropped and counted. Garbage is neither.
func TestDirectMessagesAreBounded(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	release := make(chan struct{})
	c, stop := startAsked(t, b, "one", func(context.Context, []byte) ([]byte, error) { <-release; return nil, nil })
	for _, garbage := range []string{"", "\n", "{}", "null\nx", "[]", `{"id":1}`} {
		c.heardDirect([]byte(garbage))
	}
	ask := func(id string, size int) {
		c.heardDirect(append(fmt.Appendf(nil, `{"id":%q,"from":"0123456789abcdef","ms":2500}`+"\n", id), make([]byte, size)...))
	}
	for i := range directAtOnce {
		ask(fmt.Sprint(i), 0)
	}
	if n := c.Dropped(); n != 0 {
		t.Errorf("%d dropped within the number", n)
	}
	ask("one too many", 0)
	if n := c.Dropped(); n != 1 {
		t.Errorf("%d dropped, want 1", n)
	}
	close(release)
	c.direct.working.Wait()
	release = make(chan struct{})
	for i := range directHeld / DirectBytes {
		ask(fmt.Sprint("large", i), DirectBytes)
	}
	if n := c.Dropped(); n != 1 {
		t.Errorf("%d dropped within the bytes", n-1)
	}
	ask("a byte too many", 1)
	if n := c.Dropped(); n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
	close(release)
	stop()
}
