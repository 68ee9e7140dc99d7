// Package drain learns from an EC2 instance's metadata (IMDSv2) which instance this is and that it is about to go, and tells its group when it may.
//
// The lifecycle hook of an Auto Scaling group comes only after the targets have been deregistered, up to the whole deregistration delay too
// late for a node that wants to close its clients before. The metadata tells at once.
package drain

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Poll is how often the metadata is asked.
const Poll = 2 * time.Second

// Watcher waits for the end of one instance. Wait may be called once.
type Watcher struct {
	metadata *Metadata
	poll     time.Duration
	log      *slog.Logger
}

// NewWatcher makes a watcher of the instance that m tells of; poll 0 is Poll.
func NewWatcher(m *Metadata, poll time.Duration, log *slog.Logger) *Watcher {
	if poll == 0 {
		poll = Poll
	}
	return &Watcher{metadata: m, poll: poll, log: log}
}

// Wait returns the reason when the instance is about to go: its target lifecycle state is Terminated or Warmed, a spot interruption or a rebalance
// recommendation stands. A metadata service that is away is asked again; ctx ends the wait with its error.
func (w *Watcher) Wait(ctx context.Context) (reason string, err error) {
	defer w.metadata.close()
	ticker := time.NewTicker(w.poll)
	defer ticker.Stop()
	failing := false
	for {
		reason, err := w.look(ctx)
		if reason != "" {
			return reason, nil
		}
		if err != nil && ctx.Err() == nil && !failing {
			w.log.Warn("instance metadata can't be read: a scale-in will be noticed by SIGTERM only", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-ticker.C:
		}
	}
}

// look asks the three places that tell of an end. One that fails doesn't hide what another says.
func (w *Watcher) look(ctx context.Context) (reason string, err error) {
	state, leaving, err := w.metadata.leaving(ctx)
	if leaving {
		return "target lifecycle state " + state, nil
	}
	for _, notice := range []struct{ path, reason string }{
		{"spot/instance-action", "spot interruption"},
		{"events/recommendations/rebalance", "rebalance recommendation"},
	} {
		_, found, e := w.metadata.get(ctx, notice.path)
		if found {
			return notice.reason, nil
		}
		err = errors.Join(err, e)
	}
	return "", err
}
