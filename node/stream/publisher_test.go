package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tideline/shared/limit"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// paper is what was published.
type paper struct {
	mu      sync.Mutex
	batches [][]line
	cursors []string
	err     error
	hold    chan struct{} // when not nil, publishing waits for it
}

func (p *paper) publish(data []byte, cursor string) error {
	if p.hold != nil {
		<-p.hold
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var b struct {
		Type  string
		Lines []line
	}
	if err := json.Unmarshal(data, &b); err != nil || b.Type != "lines" {
		return fmt.Errorf("%.100s: %w", data, err)
	}
	if len(data) > limit.DataBytes {
		return fmt.Errorf("publication of %d bytes", len(data))
	}
	p.batches, p.cursors = append(p.batches, b.Lines), append(p.cursors, cursor)
	return p.err
}

func (p *paper) lines() (all []line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.batches {
		all = append(all, b...)
	}
	return all
}

// start runs a publisher until the test ends.
func start(t *testing.T, out *paper) *publisher {
	t.Helper()
	p := newPublisher(out.publish, newMeter(nil, nil).counters("test"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

func add(t *testing.T, p *publisher, e Event) {
	t.Helper()
	if err := p.event(e); err != nil {
		t.Fatal(err)
	}
}

func TestLinesWaitForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &paper{}
		p := start(t, out)
		add(t, p, Event{Text: "a", Stream: "stdout", Time: time.UnixMilli(5), Cursor: "1"})
		time.Sleep(batchWait - time.Millisecond)
		add(t, p, Event{Text: "b", Cursor: "2"})
		synctest.Wait()
		if len(out.lines()) != 0 {
			t.Error("published before its time")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		add(t, p, Event{Kind: Note, Text: "c"})
		add(t, p, Event{Kind: Gap, Text: "d"})
		time.Sleep(batchWait)
		synctest.Wait()
		got, err := json.Marshal(out.batches)
		want := `[[{"t":5,"s":"stdout","m":"a"},{"m":"b"}],[{"note":"c"},{"gap":"d"}]]`
		if err != nil || string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if fmt.Sprint(out.cursors) != "[2 ]" {
			t.Errorf("cursors %q", out.cursors)
		}
	})
}

func TestLineLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &paper{}
		p := start(t, out)
		fits := strings.Repeat("x", LineBytes)
		add(t, p, Event{Text: fits})
		add(t, p, Event{Text: fits + "y"})
		add(t, p, Event{Text: fits[1:] + "é"})
		time.Sleep(time.Second)
		synctest.Wait()
		l := out.lines()
		if l[0].Text != fits || l[0].Cut || l[1].Text != fits || !l[1].Cut || l[2].Text != fits[1:] || !l[2].Cut {
			t.Errorf("%d %v, %d %v, %d %v", len(l[0].Text), l[0].Cut, len(l[1].Text), l[1].Cut, len(l[2].Text), l[2].Cut)
		}
	})
}

// What JSON makes of control characters is six times as long; publications must stay under limit.DataBytes all the same.
func TestPublicationsStayUnderTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &paper{}
		p := start(t, out)
		for range 50 {
			add(t, p, Event{Text: strings.Repeat("\x01", LineBytes)})
		}
		add(t, p, Event{Data: json.RawMessage(`"` + strings.Repeat("x", 2*limit.DataBytes) + `"`)})
		for range 3 * batchLines {
			add(t, p, Event{Text: "short"})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		all := out.lines()
		if len(all) != 51+3*batchLines || len(all[0].Text) != LineBytes || !all[50].Cut {
			t.Errorf("%d lines", len(all))
		}
		for _, b := range out.batches {
			if len(b) > batchLines+1 {
				t.Errorf("a publication of %d lines", len(b))
			}
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &paper{}
		p := start(t, out)
		for i := range LinesBurst + 10 {
			add(t, p, Event{Text: "x", Cursor: fmt.Sprint(i)})
		}
		add(t, p, Event{Kind: Note, Text: "notes are not counted"})
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		shown, dropped, notes := tally(out.lines())
		if shown != LinesBurst || dropped != 10 || notes != 1 {
			t.Errorf("%d lines, %d dropped, %d notes", shown, dropped, notes)
		}
		if got := strings.Join(out.cursors, " "); !strings.HasSuffix(strings.TrimSpace(got), fmt.Sprint(" ", LinesBurst+9)) {
			t.Errorf("cursors %s: dropped lines have been dealt with", got)
		}
		for range LinesPerSecond + 1 {
			add(t, p, Event{Text: "x"})
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if again, more, _ := tally(out.lines()); again != shown+LinesPerSecond || more != dropped+1 {
			t.Errorf("a second later: %d lines more, %d dropped", again-shown, more-dropped)
		}
	})
}

// tally counts; lines may be dropped in several parts, as the publisher's goroutine happens to run.
func tally(lines []line) (shown, dropped, notes int) {
	for _, l := range lines {
		switch {
		case l.Dropped > 0:
			dropped += l.Dropped
		case l.Note != "":
			notes++
		default:
			shown++
		}
	}
	return shown, dropped, notes
}

// A source that waits for room has not been taken: its cursor must not be published with the lines before it.
func TestCursorDoesNotRunAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &paper{hold: make(chan struct{})}
		p := start(t, out)
		wait := make(chan struct{})
		go func() {
			defer close(wait)
			for i := range 3*batchLines + 1 {
				if p.event(Event{Text: fmt.Sprint(i), Cursor: fmt.Sprint(i)}) != nil {
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case <-wait:
			t.Fatal("a slow publication did not hold the source")
		default:
		}
		close(out.hold)
		time.Sleep(time.Second)
		<-wait
		synctest.Wait()
		for i, b := range out.batches {
			if last := b[len(b)-1].Text; last != out.cursors[i] {
				t.Errorf("publication %d ends with %s, its cursor is %s", i, last, out.cursors[i])
			}
		}
		if len(out.lines()) != 3*batchLines+1 {
			t.Errorf("%d lines", len(out.lines()))
		}
	})
}

func TestFailureEndsTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &paper{err: errors.New("fenced")}
		p := start(t, out)
		var err error
		for i := 0; i < 100*batchLines && err == nil; i++ {
			err = p.event(Event{Kind: Note, Text: "x"})
		}
		if err == nil || err.Error() != "fenced" {
			t.Errorf("%v", err)
		}
	})
}

func TestEndPublishesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &paper{}
		p := newPublisher(out.publish, newMeter(nil, nil).counters("test"))
		add(t, p, Event{Text: "a"})
		p.end()
		if err := p.run(t.Context()); err != nil || len(out.lines()) != 1 {
			t.Errorf("%v, %d lines", err, len(out.lines()))
		}
	})
}
