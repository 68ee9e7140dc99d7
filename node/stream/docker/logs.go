package docker

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"tideline/node/stream"
)

const (
	// firstTail is how many lines of a log the first reader begins with.
	firstTail = 200
	// resumeTail is how many of the latest lines are looked at for the position that the last reader reached. When it is not among them, a gap is announced.
	resumeTail = 10_000
	// young is the age of a container that appeared while somebody watched, and whose log is read from its beginning.
	young = 5 * time.Minute
	// quiet is how long nothing must come before a position counts as not found.
	quiet = 2 * time.Second
)

// reader reads one channel. It belongs to one goroutine.
type reader struct {
	e         *Engine
	container string
	at        cursor
	first     bool // nobody has read the channel before
	began     time.Time
	emit      func(stream.Event) error
}

// say emits a note, and remembers in the cursor what it told of ("" for nothing).
func (r *reader) say(state, text string) error {
	r.at.Said = state
	return r.emit(stream.Event{Kind: stream.Note, Time: time.Now(), Text: text, Cursor: r.at.String()})
}

func (r *reader) gap(text string) error {
	return r.emit(stream.Event{Kind: stream.Gap, Time: time.Now(), Text: text})
}

// away says once that the engine does not answer, and waits. tries counts in a row.
func (r *reader) away(ctx context.Context, tries int, err error) error {
	if r.at.Said != saidAway {
		r.e.log.Warn("Docker Engine away", "error", err)
		r.at.Said = saidAway
		if err := r.emit(stream.Event{Kind: stream.Gap, Time: time.Now(), Text: "the Docker Engine does not answer", Cursor: r.at.String()}); err != nil {
			return err
		}
	}
	pause(ctx, min(awayMin<<min(tries, 10), awayMax))
	return ctx.Err()
}

// readLogs reads a container's log until ctx ends, through its stops, its removal and the engine's absence.
func (r *reader) readLogs(ctx context.Context) error {
	away, idle := 0, 0
	for {
		info, err := r.inspect(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errdefs.IsNotFound(err):
			away = 0
			if r.at.Said != saidGone {
				r.first = false // all that one logs which comes now is news
				text := "there is no such container"
				if r.at.Container != "" {
					text = "the container was removed"
				}
				if err := r.say(saidGone, text); err != nil {
					return err
				}
			}
			pause(ctx, pollEvery)
			continue
		case err != nil:
			if err := r.away(ctx, away, err); err != nil {
				return err
			}
			away++
			continue
		}
		if err := r.arrive(info); err != nil {
			return err
		}
		before := r.at.position
		err = r.readContainer(ctx, info)
		var refused emitError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &refused):
			return refused.error
		case err != nil && !errdefs.IsNotFound(err):
			// The engine has gone, or refuses to read: the next round tells which.
			r.e.log.Info("container log interrupted", "container", r.container, "error", err)
			if err := r.away(ctx, away, err); err != nil {
				return err
			}
			away++
			continue
		}
		away = 0
		if idle++; r.at.position != before {
			idle = 0
		}
		pause(ctx, min(pollEvery<<min(idle, 4)/8, pollEvery)) // a running container whose log has ended is about to stop
	}
}

// emitError is an error of emit: the reading has to end.
type emitError struct{ error }

func (r *reader) inspect(ctx context.Context) (container.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := r.e.client.ContainerInspect(ctx, r.container, client.ContainerInspectOptions{})
	if err == nil && res.Container.State == nil || res.Container.Config == nil && err == nil {
		err = errors.New("the engine's answer has no state")
	}
	return res.Container, err
}

// arrive compares what is there with what the cursor knows, and says what has changed.
func (r *reader) arrive(info container.InspectResponse) error {
	started := info.State.StartedAt
	known := r.at.Container != ""
	switch {
	case known && r.at.Container != info.ID:
		r.first = false
		r.at = cursor{Container: info.ID, Started: started}
		return r.say("", "another container has this name now: "+info.ID[:min(12, len(info.ID))])
	case known && r.at.Started != started:
		r.at.Started = started
		return r.say("", "the container was started")
	}
	r.at.Container, r.at.Started = info.ID, started
	switch r.at.Said {
	case saidAway:
		return r.say("", "the Docker Engine answers again")
	case saidGone:
		r.at.Said = ""
	}
	return nil
}

// readContainer reads what the log has after the position; of a running container until it stops, and then says so.
func (r *reader) readContainer(ctx context.Context, info container.InspectResponse) error {
	stopped := !info.State.Running
	if stopped && (r.at.Said == saidStopped || r.at.Said == saidUnreadable) {
		pause(ctx, pollEvery)
		return nil
	}
	tail, err := r.tail(info)
	if err != nil {
		return emitError{err}
	}
	err = r.readLog(ctx, info, tail, !stopped)
	switch {
	case errdefs.IsNotImplemented(err), errdefs.IsInternal(err) && strings.Contains(err.Error(), "does not support reading"):
		if r.at.Said != saidUnreadable {
			if err := r.say(saidUnreadable, "the container's logging driver keeps nothing that can be read"); err != nil {
				return emitError{err}
			}
		}
		pause(ctx, awayMax)
		return nil
	case err != nil || !stopped:
		return err
	}
	text := "the container is stopped, exit code " + strconv.Itoa(info.State.ExitCode)
	if info.State.Status == container.StateCreated {
		text = "the container has not been started"
	}
	if err := r.say(saidStopped, text); err != nil {
		return emitError{err}
	}
	return nil
}

// tail is how many of the latest lines to ask for.
func (r *reader) tail(info container.InspectResponse) (string, error) {
	if r.at.Time != 0 {
		return strconv.Itoa(resumeTail), nil // since the position
	}
	if r.first {
		return strconv.Itoa(firstTail), nil
	}
	if created, err := time.Parse(time.RFC3339Nano, info.Created); err == nil && time.Since(created) < young {
		return "all", nil
	}
	return strconv.Itoa(resumeTail), r.gap("the container is older than this stream: its latest lines follow")
}

// readLog reads one answer of the engine to its end.
func (r *reader) readLog(ctx context.Context, info container.InspectResponse, tail string, follow bool) error {
	ctx, stop := r.e.watched(ctx)
	defer stop()
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: follow, Tail: tail}
	if r.at.Time != 0 {
		o.Since = since(r.at.position)
	}
	body, err := r.e.client.ContainerLogs(ctx, info.ID, o)
	if err != nil {
		return cmpCause(ctx, err)
	}
	defer body.Close()

	messages, failed := make(chan message), make(chan error, 1)
	done := make(chan struct{})
	defer func() { stop(); _ = body.Close(); <-done }() // closing unblocks the scanner
	go func() {
		defer close(done)
		for s := newScanner(body, info.Config.Tty); ; {
			m, err := s.next()
			if err != nil {
				failed <- err
				return
			}
			m.text = append([]byte(nil), m.text[:min(len(m.text), stream.LineBytes+1)]...)
			select {
			case messages <- m:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	res := resumption[message]{want: r.at.position}
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	for {
		var out []stamped[message]
		var gap bool
		select {
		case m := <-messages:
			if len(res.held) == 0 {
				silence.Reset(quiet)
			}
			out, gap = res.take(m.time.UnixNano(), m)
		case <-silence.C:
			if len(res.held) == 0 {
				continue
			}
			out, gap = res.giveUp()
		case err := <-failed:
			out, gap = res.giveUp()
			gap = gap && len(out) > 0
			if eerr := r.pass(out, gap); eerr != nil {
				return emitError{eerr}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return cmpCause(ctx, err)
		}
		if err := r.pass(out, gap); err != nil {
			return emitError{err}
		}
	}
}

// cmpCause prefers why ctx ended to the error that this led to.
func cmpCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// pass emits messages and moves the position.
func (r *reader) pass(out []stamped[message], gap bool) error {
	if gap {
		if err := r.gap("the log no longer has the place where the last reader was"); err != nil {
			return err
		}
	}
	for _, s := range out {
		m, continued := s.item, strings.Contains(r.at.Mid, s.item.stream)
		r.at.position, r.at.Said = s.position, ""
		r.at.Mid = strings.ReplaceAll(r.at.Mid, m.stream, "")
		if !m.whole {
			r.at.Mid += m.stream
		}
		if continued {
			continue // of a line that was cut already; its place goes into the cursor with the next line
		}
		if err := r.emit(stream.Event{Time: m.time, Stream: m.stream, Text: string(m.text), Cut: !m.whole, Cursor: r.at.String()}); err != nil {
			return err
		}
	}
	return nil
}
