// Package broadcast publishes for everything that is not Go, or not ours: one function with four doors.
//
// A direct invocation and a function URL get an answer with a result for each publication. EventBridge and SNS wait for no answer: there
// a publication that Redis did not take fails the invocation, so that it comes again, and one that never will be taken is logged.
// A publication without an id gets the event's own id and its index: delivered again, it is published once.
package broadcast

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"tideline/functions/api"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/metric"
)

// PublicationsMax is the most publications of one request. Each may carry limit.DataBytes, or less if its namespace says so; all together what
// the door takes: 6 MB by invocation, 1 MB by URL, 256 KB by EventBridge and SNS.
const PublicationsMax = 100

// publishBudget bounds one publication, so that one that finds the bus away leaves time to answer. It is under limit.PublishTimeout, which is the bus's own bound.
const publishBudget = 3 * time.Second

// DetailType is that of EventBridge events that this function takes.
const DetailType = "tideline.broadcast"

// Node is what stamped publications name as the node that they came in by.
const Node = "broadcast"

// Publisher is the part of bus.Bus that is used here.
type Publisher interface {
	Publish(context.Context, bus.Publication) (bus.Result, error)
}

// Publication is one thing to publish.
type Publication struct {
	Channel string          `json:"channel" minLength:"1" maxLength:"255" doc:"namespace:rest; the namespace must be known."`
	Data    json.RawMessage `json:"data" doc:"Any JSON but null."`
	ID      string          `json:"id,omitempty" maxLength:"128" doc:"The same id on the same channel publishes once."`
}

// Request is what every door takes.
type Request struct {
	Publications []Publication `json:"publications" minItems:"1" maxItems:"100" nullable:"false"`
}

// Result says what became of one publication: a position, or an error.
type Result struct {
	Position  *bus.Position `json:"position,omitempty"`
	Duplicate bool          `json:"duplicate,omitempty" doc:"It had been published before, at this position."`
	Error     *Error        `json:"error,omitempty"`
}

// Error of one publication. Temporary ones are worth trying again.
type Error struct {
	Code      string `json:"code" enum:"invalid-channel,unknown-namespace,invalid-data,invalid-id,too-large,unavailable"`
	Message   string `json:"message"`
	Temporary bool   `json:"temporary,omitempty"`
}

// Response has the results in the order of the publications.
type Response struct {
	Results   []Result `json:"results" nullable:"false"`
	Published int      `json:"published"`
	Failed    int      `json:"failed"`
}

// ErrRequest says that a request as a whole can't be understood; nothing was published.
var ErrRequest = errors.New("broadcast request malformed")

// Options of New. Publisher is required.
type Options struct {
	Publisher  Publisher
	Namespaces *channel.Table // nil: channel.Shipped
	Log        *slog.Logger
	Meter      api.Meter
	Now        func() time.Time
}

// Broadcast publishes. It is safe for concurrent use.
type Broadcast struct {
	bus   Publisher
	table *channel.Table
	log   *slog.Logger
	meter api.Meter
	now   func() time.Time
}

// New makes a Broadcast.
func New(o Options) (*Broadcast, error) {
	if o.Publisher == nil {
		return nil, errors.New("broadcast: a publisher is required")
	}
	b := &Broadcast{bus: o.Publisher, table: o.Namespaces, log: o.Log, meter: o.Meter, now: o.Now}
	if b.table == nil {
		b.table = channel.Shipped()
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.now == nil {
		b.now = time.Now
	}
	return b, nil
}

// parse reads a request as every door but the URL gets it.
func parse(raw []byte) (Request, error) {
	var r Request
	if err := api.StrictJSON(raw); err != nil {
		return r, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if n := len(r.Publications); n < 1 || n > PublicationsMax {
		return r, fmt.Errorf("%w: %d publications, 1 to %d are taken", ErrRequest, n, PublicationsMax)
	}
	return r, nil
}

// Publish publishes in order. Source is the event's own id. After the bus was found away, the rest is not tried.
func (b *Broadcast) Publish(ctx context.Context, source string, r Request) Response {
	out := Response{Results: make([]Result, len(r.Publications))}
	var away *Error
	for i, p := range r.Publications {
		res := Result{Error: away}
		if away == nil {
			res = b.publish(ctx, source, i, p)
		}
		if res.Error != nil {
			out.Failed++
			if res.Error.Temporary {
				away = res.Error
			}
		} else {
			out.Published++
		}
		out.Results[i] = res
	}
	return out
}

// stamped is the form of publications in namespaces whose clients expect a stamp. No user published them.
type stamped struct {
	ID   string          `json:"id"`
	User string          `json:"user"`
	Time int64           `json:"time"` // milliseconds since 1970
	Node string          `json:"node"`
	Data json.RawMessage `json:"data"`
}

func (b *Broadcast) publish(ctx context.Context, source string, i int, p Publication) Result {
	ns, err := b.table.Lookup(p.Channel)
	switch {
	case errors.Is(err, channel.ErrUnknown):
		return refused("unknown-namespace", err)
	case err != nil:
		return refused("invalid-channel", err)
	}
	var data bytes.Buffer
	if err := json.Compact(&data, p.Data); err != nil || data.Len() == 0 || data.String() == "null" {
		return refused("invalid-data", errors.New("data must be JSON, and not null"))
	}
	if n, most := data.Len(), dataBytes(ns); n > most {
		return refused("too-large", fmt.Errorf("data has %d bytes, at most %d", n, most))
	}
	if len(p.ID) > limit.PublicationIDBytes {
		return refused("invalid-id", fmt.Errorf("id has %d bytes, at most %d", len(p.ID), limit.PublicationIDBytes))
	}
	id := p.ID
	if id == "" {
		id = source + ":" + strconv.Itoa(i)
	}
	pub := bus.Publication{Channel: p.Channel, Data: data.Bytes(), ID: id, Time: b.now().UnixMilli(), History: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL}}
	if ns.Stamped {
		if pub.Data, err = json.Marshal(stamped{ID: id, Time: pub.Time, Node: Node, Data: data.Bytes()}); err != nil {
			return refused("invalid-data", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishBudget)
	defer cancel()
	r, err := b.bus.Publish(ctx, pub)
	switch {
	case err == nil:
		if r.Duplicate {
			b.count(metric.Duplicates)
		}
		return Result{Position: &r.Position, Duplicate: r.Duplicate}
	case errors.Is(err, bus.ErrTooLarge):
		return refused("too-large", err)
	case errors.Is(err, bus.ErrInvalid):
		return refused("invalid-data", err)
	}
	b.count(metric.PublishFailures)
	b.log.WarnContext(ctx, "publication not taken", "channel", p.Channel, "error", err)
	return Result{Error: &Error{Code: "unavailable", Message: "the bus did not take it; try again", Temporary: true}}
}

func dataBytes(ns channel.Namespace) int {
	if ns.DataBytes > 0 {
		return min(ns.DataBytes, limit.DataBytes)
	}
	return limit.DataBytes
}

func refused(code string, err error) Result {
	return Result{Error: &Error{Code: code, Message: err.Error()}}
}

func (b *Broadcast) count(name string) {
	if b.meter != nil {
		b.meter.Add(name, 1)
	}
}
