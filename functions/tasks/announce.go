package tasks

import (
	"context"
	"errors"
	"fmt"

	"tideline/functions/api"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/metric"
	"tideline/shared/todo"
)

// announcer publishes what becomes of tasks. It is safe for concurrent use.
type announcer struct {
	bus         Publisher
	user, todos channel.Namespace
	meter       api.Meter
}

func newAnnouncer(p Publisher, table *channel.Table, meter api.Meter) (*announcer, error) {
	if table == nil {
		table = channel.Shipped()
	}
	user, err := table.Lookup(todo.TaskNamespace + ":")
	if err != nil {
		return nil, fmt.Errorf("tasks: %w", err)
	}
	todos, err := table.Lookup(todo.Namespace + ":")
	if err != nil {
		return nil, fmt.Errorf("tasks: %w", err)
	}
	return &announcer{p, user, todos, meter}, nil
}

// task publishes the task as it stands.
func (a *announcer) task(ctx context.Context, t todo.TaskRecord) error {
	p, err := todo.TaskEventOf(t.Task).Publication(t.User, a.user)
	if err != nil {
		return err
	}
	return a.publish(ctx, p)
}

// end publishes all that a task's end has to tell: that the list changed, and then that the task is over. It may be repeated.
func (a *announcer) end(ctx context.Context, t todo.TaskRecord) error {
	if t.Created > 0 {
		if err := a.publish(ctx, todo.ChangedPublication(t.User, t.ID+":changed", a.todos)); err != nil {
			return err
		}
	}
	return a.task(ctx, t)
}

func (a *announcer) publish(ctx context.Context, p bus.Publication) error {
	_, err := a.bus.Publish(ctx, p)
	if err == nil {
		return nil
	}
	if a.meter != nil {
		a.meter.Add(metric.PublishFailures, 1)
	}
	if errors.Is(err, bus.ErrInvalid) || errors.Is(err, bus.ErrTooLarge) { // never will be
		return fmt.Errorf("%w: publish %s: %w", errPoison, p.ID, err)
	}
	return fmt.Errorf("publish %s: %w", p.ID, err)
}

// errPoison says that trying again is useless.
var errPoison = errors.New("refused for good")
