package outbox

import (
	"context"
	"errors"
	"fmt"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/metric"
	"tideline/shared/todo"
)

// Publisher is the part of bus.Bus that is used here.
type Publisher interface {
	Publish(context.Context, bus.Publication) (bus.Result, error)
}

// Meter counts; functions/meter has the implementations.
type Meter interface {
	Add(name string, n float64, labels ...string)
}

// publishing turns events into publications and counts what became of them.
type publishing struct {
	to    Publisher
	ns    channel.Namespace
	meter Meter
}

func newPublishing(to Publisher, table *channel.Table, meter Meter) (*publishing, error) {
	if to == nil {
		return nil, errors.New("outbox: a publisher is required")
	}
	if table == nil {
		table = channel.Shipped()
	}
	ns, err := table.Lookup(todo.Namespace + ":")
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	return &publishing{to, ns, meter}, nil
}

func (p *publishing) publish(ctx context.Context, user string, e todo.Event) error {
	pub, err := e.Publication(user, p.ns)
	if err != nil {
		return fmt.Errorf("%w: %w", bus.ErrInvalid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit.PublishTimeout)
	defer cancel()
	r, err := p.to.Publish(ctx, pub)
	if err != nil {
		p.count(metric.PublishFailures)
		return fmt.Errorf("publish todo %s: %w", pub.ID, err)
	}
	if r.Duplicate || r.Superseded {
		p.count(metric.Duplicates)
	}
	return nil
}

func (p *publishing) count(name string) {
	if p.meter != nil {
		p.meter.Add(name, 1)
	}
}

// poison reports whether the bus will refuse this publication however often it is tried.
func poison(err error) bool { return errors.Is(err, bus.ErrInvalid) || errors.Is(err, bus.ErrTooLarge) }
