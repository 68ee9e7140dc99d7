package todo

import (
	"context"
	"errors"
	"sync"
)

// clearPage and clearAtOnce bound what ClearCompleted reads and writes at a time.
const (
	clearPage   = 100
	clearAtOnce = 8
)

// ClearCompleted deletes what is done, newest first, until nothing is left or goOn answers false, and answers an event for each deletion,
// also with an error. More says that something may be left. What is changed or completed meanwhile may be deleted or not.
func (b *Book) ClearCompleted(ctx context.Context, user string, goOn func() bool) (deleted []Event, more bool, err error) {
	done := true
	q := Query{Done: &done, Limit: clearPage}
	for {
		page, err := b.List(ctx, user, q)
		if err != nil {
			return deleted, true, err
		}
		for i := 0; i < len(page.Items); i += clearAtOnce {
			if !goOn() {
				return deleted, true, nil
			}
			events, err := b.deleteAll(ctx, user, page.Items[i:min(i+clearAtOnce, len(page.Items))])
			deleted = append(deleted, events...)
			if err != nil {
				return deleted, true, err
			}
		}
		if page.Next == nil {
			return deleted, false, nil
		}
		q.After = page.Next
	}
}

// deleteAll deletes the todos at the same time, each at the version that was listed: one that was reopened meanwhile stays.
func (b *Book) deleteAll(ctx context.Context, user string, todos []Todo) ([]Event, error) {
	outcomes, errs := make([]Outcome, len(todos)), make([]error, len(todos))
	var wg sync.WaitGroup
	for i, t := range todos {
		wg.Go(func() {
			outcomes[i], errs[i] = b.Delete(ctx, user, t.ID, Match{Versions: []uint64{t.Version}})
		})
	}
	wg.Wait()
	var events []Event
	var failed []error
	for i, err := range errs {
		switch {
		case err == nil:
			events = append(events, *outcomes[i].Event)
		case errors.Is(err, ErrNotFound) || errors.Is(err, ErrPrecondition): // somebody else was first
		default:
			failed = append(failed, err)
		}
	}
	return events, errors.Join(failed...)
}
