package stream

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"tideline/shared/limit"
)

// Bounds of one stream. LineBytes*6, which is what JSON can make of it, is under limit.DataBytes.
const (
	// LineBytes is the longest line; what is longer is cut, and marked so.
	LineBytes = 8 << 10
	// LinesPerSecond is how many lines a second are published of one stream, LinesBurst how many at once after a quiet time. The rest is dropped and
	// counted.
	LinesPerSecond = 500
	LinesBurst     = 2000
	// batchLines and batchBytes bound one publication, batchWait how long its first line waits for company.
	batchLines = 200
	batchBytes = 48 << 10
	batchWait  = 50 * time.Millisecond
	// droppedWait is how long a count of dropped lines waits for a line that is not.
	droppedWait = time.Second
)

// line is one event as browsers get it, in {"type":"lines","lines":[…]}.
type line struct {
	Time    int64           `json:"t,omitempty"` // Unix milliseconds
	Stream  string          `json:"s,omitempty"`
	Text    string          `json:"m,omitempty"`
	Cut     bool            `json:"cut,omitempty"`     // the line was longer than LineBytes
	Data    json.RawMessage `json:"data,omitempty"`    // of a structured event
	Note    string          `json:"note,omitempty"`    // said by the source about itself
	Gap     string          `json:"gap,omitempty"`     // lines may be missing here, for this reason
	Dropped int             `json:"dropped,omitempty"` // so many lines are missing here: the stream was faster than LinesPerSecond
}

// publisher collects events into bounded publications. The source's goroutine adds, run publishes; when a publication is full and the one before it is
// still under way, the source waits.
type publisher struct {
	publish func(data []byte, cursor string) error
	count   counters
	now     func() time.Time

	mu     sync.Mutex
	room   *sync.Cond
	data   []byte // the lines, each encoded and followed by a comma
	lines  int
	cursor string // after the last line, dropped ones included
	moved  bool   // cursor has not been published
	// allowed is what may still be published in the second that began at second.
	allowed      int
	second       time.Time
	dropped      int
	since        time.Time // when the first of lines, or of dropped without lines, came
	totalDropped int
	failed       error // of publishing: nothing is taken any more
	ended        bool
	wake         chan struct{}
}

func newPublisher(publish func(data []byte, cursor string) error, count counters) *publisher {
	p := &publisher{publish: publish, count: count, now: time.Now, allowed: LinesBurst, wake: make(chan struct{}, 1)}
	p.room = sync.NewCond(&p.mu)
	p.second = p.now()
	return p
}

// event takes one event of the source.
func (p *publisher) event(e Event) error {
	l := line{Stream: e.Stream, Text: e.Text, Data: e.Data, Cut: e.Cut}
	if !e.Time.IsZero() {
		l.Time = e.Time.UnixMilli()
	}
	switch e.Kind {
	case Note:
		l.Text, l.Note = "", e.Text
	case Gap:
		l.Text, l.Gap = "", e.Text
	}
	if len(l.Text) > LineBytes {
		cut := LineBytes
		for cut > LineBytes-utf8.UTFMax && !utf8.RuneStart(l.Text[cut]) {
			cut--
		}
		l.Text, l.Cut = l.Text[:cut], true
	}
	encoded, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if len(encoded) > limit.DataBytes-256 { // Data that its source did not bound
		encoded, err = json.Marshal(line{Time: l.Time, Stream: l.Stream, Cut: true})
		if err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Kind == Line && !p.allowLocked() {
		if p.dropped == 0 && p.lines == 0 {
			p.since = p.now()
			p.signal()
		}
		p.dropped++
		p.totalDropped++
		p.count.dropped.Inc()
		p.moveLocked(e.Cursor) // it has been dealt with
		return p.failed
	}
	return p.addLocked(encoded, e.Cursor)
}

// allowLocked counts a line. The allowance comes once a second, not evenly, so that a flood reads as "500 lines, n dropped" and not as a line here and there.
func (p *publisher) allowLocked() bool {
	if passed := p.now().Sub(p.second); passed >= time.Second {
		p.allowed = min(LinesBurst, p.allowed+int(min(passed/time.Second, LinesBurst))*LinesPerSecond)
		p.second = p.now()
	}
	if p.allowed == 0 {
		return false
	}
	p.allowed--
	return true
}

func (p *publisher) moveLocked(cursor string) {
	if cursor != "" {
		p.cursor, p.moved = cursor, true
	}
}

// addLocked waits for room, and only then moves the cursor: what is published with it must include the line.
func (p *publisher) addLocked(encoded []byte, cursor string) error {
	for p.failed == nil && p.lines > 0 && (p.lines >= batchLines || len(p.data)+len(encoded) > batchBytes) {
		p.room.Wait()
	}
	if p.failed != nil {
		return p.failed
	}
	if p.lines == 0 && p.dropped == 0 {
		p.since = p.now()
	}
	p.flushDroppedLocked()
	p.data = append(append(p.data, encoded...), ',')
	p.lines++
	p.moveLocked(cursor)
	p.signal()
	return nil
}

// flushDroppedLocked turns the count of dropped lines into a line.
func (p *publisher) flushDroppedLocked() {
	if p.dropped > 0 {
		p.data = append(strconv.AppendInt(append(p.data, `{"dropped":`...), int64(p.dropped), 10), "},"...)
		p.lines++
		p.dropped = 0
	}
}

func (p *publisher) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// end says that nothing more will come; what is there goes out at once.
func (p *publisher) end() {
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
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, ended := p.due()
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-p.wake:
				continue
			case <-timer.C:
			}
		}
		data, cursor, lines := p.take()
		if data != nil {
			if err := p.publish(data, cursor); err != nil {
				return err
			}
			p.count.lines.Add(float64(lines))
		}
		if ended {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// due is how long what is there may wait.
func (p *publisher) due() (wait time.Duration, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
		return 0, true
	case p.lines >= batchLines || len(p.data) >= batchBytes/2:
		return 0, false
	case p.lines > 0:
		return batchWait - p.now().Sub(p.since), false
	case p.dropped > 0:
		return droppedWait - p.now().Sub(p.since), false
	}
	return time.Hour, false
}

// take answers the next publication and how many lines it has, or nil.
func (p *publisher) take() (data []byte, cursor string, lines int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flushDroppedLocked()
	if p.lines == 0 {
		return nil, "", 0
	}
	data = append([]byte(`{"type":"lines","lines":[`), p.data[:len(p.data)-1]...)
	data = append(data, "]}"...)
	if p.moved {
		cursor = p.cursor
	}
	lines = p.lines
	p.data, p.lines, p.moved = p.data[:0], 0, false
	p.room.Broadcast()
	return data, cursor, lines
}
