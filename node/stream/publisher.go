package stream

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

// Limits of one stream.
const (
	// LineBytes is the longest line; what is longer is cut, and marked so.
	LineBytes = 8 << 10
	// LinesPerSecond and LinesBurst bound what is published of one stream; the rest is dropped and counted.
	LinesPerSecond = 500
	LinesBurst     = 2000
	// batchLines and batchBytes bound one publication, batchWait how long its first line waits for company.
	batchLines = 200
	batchBytes = 48 << 10
	batchWait  = 50 * time.Millisecond
)

// line is one event as browsers get it.
type line struct {
	Time    int64           `json:"t,omitempty"` // Unix milliseconds
	Stream  string          `json:"s,omitempty"`
	Text    string          `json:"m,omitempty"`
	Cut     bool            `json:"cut,omitempty"`     // the line was longer than LineBytes
	Data    json.RawMessage `json:"data,omitempty"`    // of a structured event
	Dropped int             `json:"dropped,omitempty"` // so many lines are missing here: the stream was faster than LinesPerSecond
	Gap     string          `json:"gap,omitempty"`     // lines may be missing here, for this reason
}

// batch is one publication: {"type":"lines","lines":[…]}.
type batch struct {
	Type  string `json:"type"`
	Lines []line `json:"lines"`
}

// publisher collects events into bounded publications. The source's goroutine adds, run publishes; when run is slow the source waits, and a source that can't wait drops.
type publisher struct {
	publish func(data []byte, cursor string) error
	rate    *rate.Limiter

	mu      sync.Mutex
	room    *sync.Cond
	lines   []line
	bytes   int
	cursor  string
	dropped int
	failed  error // of publishing: nothing is taken any more
	ended   bool
	wake    chan struct{}
}

func newPublisher(publish func([]byte, string) error) *publisher {
	p := &publisher{publish: publish, rate: rate.NewLimiter(LinesPerSecond, LinesBurst), wake: make(chan struct{}, 1)}
	p.room = sync.NewCond(&p.mu)
	return p
}

// event takes one event of the source.
func (p *publisher) event(e Event) error {
	l := line{Stream: e.Stream, Text: e.Text, Data: e.Data}
	if !e.Time.IsZero() {
		l.Time = e.Time.UnixMilli()
	}
	if len(l.Text) > LineBytes {
		cut := LineBytes
		for cut > 0 && !utf8.RuneStart(l.Text[cut]) {
			cut--
		}
		l.Text, l.Cut = l.Text[:cut], true
	}
	return p.add(l, e.Cursor, p.rate.Allow())
}

// gap announces that lines may be missing.
func (p *publisher) gap(reason string) error { return p.add(line{Gap: reason}, "", true) }

func (p *publisher) add(l line, cursor string, allowed bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cursor != "" {
		p.cursor = cursor // of a dropped line, too: it has been dealt with
	}
	if !allowed {
		p.dropped++
		p.signal()
		return p.failed
	}
	size := len(l.Text) + len(l.Data) + 64
	for p.failed == nil && len(p.lines) > 0 && (len(p.lines) >= batchLines || p.bytes+size > batchBytes) {
		p.room.Wait()
	}
	if p.failed != nil {
		return p.failed
	}
	if p.dropped > 0 {
		p.lines = append(p.lines, line{Dropped: p.dropped})
		p.dropped = 0
	}
	p.lines = append(p.lines, l)
	p.bytes += size
	p.signal()
	return nil
}

func (p *publisher) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// end says that the source has ended, and how.
func (p *publisher) end(err error) {
	if errors.Is(err, ErrEnded) {
		_ = p.gap(err.Error()) // a publisher that has failed says so by itself
	}
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.signal()
}

// run publishes until the source has ended and all is out, or publishing fails, or ctx ends.
func (p *publisher) run(ctx context.Context) (err error) {
	defer func() {
		p.mu.Lock()
		if p.failed = err; err == nil {
			p.failed = context.Canceled
		}
		p.room.Broadcast()
		p.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.wake:
		}
		wait := time.NewTimer(batchWait)
		select {
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		case <-wait.C:
		}
		p.mu.Lock()
		b, cursor, ended := batch{Type: "lines", Lines: p.lines}, p.cursor, p.ended
		if p.dropped > 0 {
			b.Lines = append(b.Lines, line{Dropped: p.dropped})
			p.dropped = 0
		}
		p.lines, p.bytes = nil, 0
		p.room.Broadcast()
		p.mu.Unlock()
		if len(b.Lines) > 0 {
			data, err := json.Marshal(b)
			if err != nil {
				return err
			}
			if err := p.publish(data, cursor); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}
