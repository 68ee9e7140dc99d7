// Package drain learns from an EC2 instance's metadata (IMDSv2) that the instance is about to go.
//
// The lifecycle hook of an Auto Scaling group comes only after the targets have been deregistered, up to the whole deregistration delay too
// late for a node that wants to close its clients before. The metadata tells at once.
package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Poll is how often the metadata is asked, Timeout how long one answer may take.
const (
	Poll    = 2 * time.Second
	Timeout = time.Second
)

// tokenTTL is how long a session token of the metadata service is good for, in seconds; it is renewed at half of it.
const tokenTTL = 300

// bodyMost is the longest answer that is read, in bytes.
const bodyMost = 4 << 10

// Watcher asks one metadata service. Wait may be called once.
type Watcher struct {
	endpoint string
	poll     time.Duration
	client   http.Client
	log      *slog.Logger
	token    string
	renew    time.Time
}

// NewWatcher makes a watcher of the metadata service at endpoint, http://169.254.169.254 on an instance; poll 0 is Poll.
func NewWatcher(endpoint string, poll time.Duration, log *slog.Logger) *Watcher {
	if poll == 0 {
		poll = Poll
	}
	return &Watcher{endpoint: strings.TrimSuffix(endpoint, "/"), poll: poll, log: log,
		client: http.Client{Timeout: Timeout, Transport: &http.Transport{Proxy: nil, MaxIdleConns: 1, IdleConnTimeout: time.Minute}}}
}

// Wait returns the reason when the instance is about to go: its target lifecycle state is Terminated or Warmed, a spot interruption or a rebalance
// recommendation stands. A metadata service that is away is asked again; ctx ends the wait with its error.
func (w *Watcher) Wait(ctx context.Context) (reason string, err error) {
	defer w.client.CloseIdleConnections()
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
	state, found, err := w.get(ctx, "autoscaling/target-lifecycle-state")
	if found && (state == "Terminated" || strings.HasPrefix(state, "Warmed:")) {
		return "target lifecycle state " + state, nil
	}
	for _, notice := range []struct{ path, reason string }{
		{"spot/instance-action", "spot interruption"},
		{"events/recommendations/rebalance", "rebalance recommendation"},
	} {
		_, found, e := w.get(ctx, notice.path)
		if found {
			return notice.reason, nil
		}
		err = errors.Join(err, e)
	}
	return "", err
}

// get reads one item of the metadata; 404 is found == false.
func (w *Watcher) get(ctx context.Context, path string) (value string, found bool, err error) {
	if time.Now().After(w.renew) {
		token, status, err := w.do(ctx, http.MethodPut, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", fmt.Sprint(tokenTTL))
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("metadata token: status %d", status)
		}
		if err != nil {
			return "", false, err
		}
		w.token, w.renew = token, time.Now().Add(tokenTTL/2*time.Second)
	}
	value, status, err := w.do(ctx, http.MethodGet, "/latest/meta-data/"+path, "X-aws-ec2-metadata-token", w.token)
	switch {
	case err != nil:
		return "", false, err
	case status == http.StatusOK:
		return value, true, nil
	case status == http.StatusNotFound:
		return "", false, nil
	case status == http.StatusUnauthorized:
		w.renew = time.Time{} // the token is no longer good
	}
	return "", false, fmt.Errorf("metadata %s: status %d", path, status)
}

func (w *Watcher) do(ctx context.Context, method, path, header, value string) (body string, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, w.endpoint+path, nil)
	if err != nil {
		return "", 0, err
	}
	req.Header.Set(header, value)
	res, err := w.client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, bodyMost))
	if err != nil {
		return "", 0, err
	}
	return strings.TrimSpace(string(b)), res.StatusCode, nil
}
