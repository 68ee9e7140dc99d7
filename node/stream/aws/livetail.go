// Package aws follows CloudWatch log groups by Live Tail, as a source of streams: one session for each group that somebody watches.
//
// Live Tail has no place to go back to: between two sessions lines may be missing, and a gap says so. Sessions cost money by the minute, and an account has
// few at a time; they end with the last viewer.
package aws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"tideline/node/stream"
)

// Namespace is that of all channels of this source: logs:<group>.
const Namespace = "logs"

const (
	// lifetime is how long a session is used; AWS ends it after three hours.
	lifetime = 2*time.Hour + 50*time.Minute
	// silence is how long a session may say nothing: an update comes every second, an empty one if need be.
	silence = 15 * time.Second
	// startTimeout bounds the calls that find the group and begin the session.
	startTimeout = 15 * time.Second
	retryMin     = time.Second
	retryMax     = time.Minute
)

// groupPattern is what a log group may be called, without '#': a channel with one is personal.
var groupPattern = regexp.MustCompile(`^[a-zA-Z0-9_/.-]{1,240}$`)

var errGroup = fmt.Errorf("want logs:<group>, with a group that matches %s", groupPattern)

// Source is safe for concurrent use.
type Source struct {
	client                     *cloudwatchlogs.Client
	log                        *slog.Logger
	lifetime, silence, retries time.Duration // the last: the first wait after a failure
}

// New connects to nothing.
func New(c aws.Config, log *slog.Logger) *Source {
	return &Source{client: cloudwatchlogs.NewFromConfig(c), log: log, lifetime: lifetime, silence: silence, retries: retryMin}
}

func group(channel string) (string, error) {
	name, ours := strings.CutPrefix(channel, Namespace+":")
	if !ours || !groupPattern.MatchString(name) {
		return "", errGroup
	}
	return name, nil
}

// Check implements stream.Source.
func (s *Source) Check(channel string) error {
	_, err := group(channel)
	return err
}

// Reasons to end a session; the text is what viewers read.
var (
	errRenewed = errors.New("the session was renewed")
	errSilent  = errors.New("the session fell silent")
	errEnded   = errors.New("CloudWatch ended the session")
	errNoGroup = errors.New("there is no such log group")
)

// emitError is an error of emit: the reading has to end.
type emitError struct{ error }

// Read implements stream.Source. The cursor is the time of the last line: it tells that somebody has read before, not where to go on.
func (s *Source) Read(ctx context.Context, channel, cursor string, emit func(stream.Event) error) error {
	name, err := group(channel)
	if err != nil {
		return err
	}
	why := ""
	if cursor != "" {
		why = "another reader began"
	}
	var told error
	for wait := s.retries; ; {
		stood, err := s.session(ctx, name, why, emit)
		var refused emitError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &refused):
			return refused.error
		}
		reason := explain(err)
		if errors.Is(err, errRenewed) {
			why, wait, told = reason.Error(), s.retries, nil
			continue
		}
		s.log.Warn("live tail interrupted", "group", name, "error", err)
		if stood > 0 {
			told = nil // lines may have come since the last gap was announced
		}
		if stood > retryMax {
			wait = s.retries
		}
		if reason != told { // once, not at every try that fails
			if err := emit(stream.Event{Kind: stream.Gap, Time: time.Now(), Text: reason.Error(), Cursor: mark(time.Now())}); err != nil {
				return err
			}
			told = reason
		}
		why = ""
		pause(ctx, wait)
		wait = min(2*wait, retryMax)
	}
}

// Reasons that AWS gives.
var (
	errLimit  = errors.New("the account has as many Live Tail sessions as it may have")
	errDenied = errors.New("the node may not follow this log group")
	errAway   = errors.New("CloudWatch Logs does not answer")
)

// explain answers what viewers are told.
func explain(err error) error {
	for _, known := range []error{errRenewed, errSilent, errEnded, errNoGroup} {
		if errors.Is(err, known) {
			return known
		}
	}
	var limit *types.LimitExceededException
	var gone *types.ResourceNotFoundException
	var denied *types.AccessDeniedException
	var code interface{ ErrorCode() string }
	switch {
	case errors.As(err, &limit):
		return errLimit
	case errors.As(err, &gone):
		return errNoGroup
	case errors.As(err, &denied), errors.As(err, &code) && strings.HasPrefix(code.ErrorCode(), "AccessDenied"):
		return errDenied
	}
	return errAway
}

func mark(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// find answers the group's ARN, which is what a session takes.
func (s *Source) find(ctx context.Context, name string) (string, error) {
	// Names are answered in order: the one that equals its prefix comes first.
	res, err := s.client.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &name, Limit: aws.Int32(1)})
	if err != nil {
		return "", fmt.Errorf("find log group: %w", err)
	}
	if len(res.LogGroups) == 0 || aws.ToString(res.LogGroups[0].LogGroupName) != name {
		return "", errNoGroup
	}
	return aws.ToString(res.LogGroups[0].LogGroupArn), nil
}

// session follows the group until the session is too old, falls silent or ends, and answers which, and for how long it stood. why, unless empty, is said as a
// gap once it stands.
func (s *Source) session(ctx context.Context, name, why string, emit func(stream.Event) error) (stood time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.AfterFunc(startTimeout, func() { cancel(errSilent) })
	defer start.Stop()
	arn, err := s.find(ctx, name)
	if err != nil {
		return 0, err
	}
	res, err := s.client.StartLiveTail(ctx, &cloudwatchlogs.StartLiveTailInput{LogGroupIdentifiers: []string{arn}})
	if err != nil {
		return 0, fmt.Errorf("start live tail: %w", err)
	}
	start.Stop()
	began := time.Now()
	err = s.follow(ctx, res.GetStream(), why, emit)
	return time.Since(began), err
}

// follow reads a session that stands.
func (s *Source) follow(ctx context.Context, live *cloudwatchlogs.StartLiveTailEventStream, why string, emit func(stream.Event) error) error {
	defer live.Close()
	age, quiet := time.NewTimer(s.lifetime), time.NewTimer(s.silence)
	defer age.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-age.C:
			return errRenewed
		case <-quiet.C:
			return errSilent
		case e, more := <-live.Events():
			if !more {
				return errors.Join(errEnded, live.Err())
			}
			quiet.Reset(s.silence)
			switch e := e.(type) {
			case *types.StartLiveTailResponseStreamMemberSessionStart:
				if why == "" {
					continue
				}
				if err := emit(stream.Event{Kind: stream.Gap, Time: time.Now(), Text: why + ": lines of a few seconds may be missing"}); err != nil {
					return emitError{err}
				}
			case *types.StartLiveTailResponseStreamMemberSessionUpdate:
				if err := pass(e.Value, emit); err != nil {
					return emitError{err}
				}
			}
		}
	}
}

// pass emits one second's lines.
func pass(u types.LiveTailSessionUpdate, emit func(stream.Event) error) error {
	for _, l := range u.SessionResults {
		at := time.UnixMilli(aws.ToInt64(l.Timestamp))
		name := aws.ToString(l.LogStreamName)
		if err := emit(stream.Event{Time: at, Stream: name, Text: strings.TrimRight(aws.ToString(l.Message), "\r\n"), Cursor: mark(at)}); err != nil {
			return err
		}
	}
	if u.SessionMetadata != nil && u.SessionMetadata.Sampled {
		return emit(stream.Event{Kind: stream.Gap, Time: time.Now(), Text: "sampled: more than 500 lines came in that second, and CloudWatch showed 500 of them"})
	}
	return nil
}
