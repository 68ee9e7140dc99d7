package drain

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Waits between two attempts to complete the lifecycle action: they double, up to a cap that is small against limit.HookHeartbeat, and are jittered.
const (
	finishFirst = time.Second
	finishMost  = 15 * time.Second
)

// Finisher tells the group that an instance may be terminated. Finish may be called once.
type Finisher struct {
	Metadata *Metadata
	// Complete completes the lifecycle action of an instance. It bounds its own time and doesn't retry.
	Complete func(context.Context, Instance) error
	Log      *slog.Logger

	first, most time.Duration // for tests; 0 is the constant
}

// Finish completes the lifecycle action of a drained instance, and returns nil when that was accepted, or ctx's error at its end.
//
// It is accepted only in Terminating:Wait, which comes after deregistration and which the metadata doesn't tell: so it is tried until it is. While the
// group has not decided that the instance goes (an operator's order, a rebalance recommendation) nothing is tried.
func (f *Finisher) Finish(ctx context.Context) error {
	defer f.Metadata.close()
	wait, most := f.first, f.most
	if wait == 0 {
		wait, most = finishFirst, finishMost
	}
	var said string
	for first := wait; ; {
		tried, err := f.attempt(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case tried && err == nil:
			f.Log.Info("lifecycle action completed")
			return nil
		case err != nil && err.Error() != said:
			said = err.Error()
			f.Log.Info("lifecycle action not completed yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
		if wait = min(2*wait, most); !tried && err == nil {
			wait = first // nothing was refused: the metadata is near
		}
	}
}

// attempt tries once, if it is time to.
func (f *Finisher) attempt(ctx context.Context) (tried bool, err error) {
	if _, leaving, err := f.Metadata.leaving(ctx); err == nil && !leaving {
		return false, nil
	} // metadata that is away may have said so before: a refusal costs nothing
	instance, err := f.Metadata.Instance(ctx)
	switch {
	case instance.ID == "":
		return false, err
	case instance.Group == "":
		return false, errors.Join(errors.New("the instance's group is not known: no tag aws:autoscaling:groupName in its metadata"), err)
	}
	return true, f.Complete(ctx, instance)
}
