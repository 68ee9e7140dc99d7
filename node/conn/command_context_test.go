package conn

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestACommandsContextIsLikeAnyOther compares it with one of package context that has the same parent and deadline.
func TestACommandsContextIsLikeAnyOther(t *testing.T) {
	for name, c := range map[string]struct {
		budget time.Duration
		then   func(cancelParent, end func())
		want   error
	}{
		"nothing happens":     {time.Hour, func(_, _ func()) {}, nil},
		"its time is over":    {time.Second, func(_, _ func()) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"it was over before":  {-time.Second, func(_, _ func()) {}, context.DeadlineExceeded},
		"the client has gone": {time.Hour, func(gone, _ func()) { gone() }, context.Canceled},
		"the command is done": {time.Hour, func(_, end func()) { end() }, context.Canceled},
	} {
		for _, waited := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				parent, gone := context.WithCancel(t.Context())
				defer gone()
				deadline := time.Now().Add(c.budget)
				ctx := &commandContext{parent: parent, deadline: deadline}
				defer ctx.end()
				var derived context.Context
				if waited {
					ctx.Done()
					var cancel context.CancelFunc
					derived, cancel = context.WithTimeout(ctx, 2*time.Hour)
					defer cancel()
				}
				c.then(gone, ctx.end)
				synctest.Wait()
				if err := ctx.Err(); !errors.Is(err, c.want) {
					t.Errorf("%s, waited for %v: %v, want %v", name, waited, err, c.want)
				}
				select {
				case <-ctx.Done():
					if c.want == nil {
						t.Errorf("%s, waited for %v: done", name, waited)
					}
				default:
					if c.want != nil {
						t.Errorf("%s, waited for %v: not done", name, waited)
					}
				}
				if waited && !errors.Is(derived.Err(), c.want) {
					t.Errorf("%s: one made of it: %v, want %v", name, derived.Err(), c.want)
				}
				if at, ok := ctx.Deadline(); !ok || !at.Equal(deadline) {
					t.Errorf("deadline %v %v", at, ok)
				}
			})
		}
	}
}
