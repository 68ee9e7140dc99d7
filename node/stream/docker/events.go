package docker

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"tideline/node/stream"
)

// event is what browsers get of one, as the data of a line.
type event struct {
	Type   string `json:"type"`
	Action string `json:"action"`
	ID     string `json:"id,omitempty"`
	Name   string `json:"name,omitempty"`
	Image  string `json:"image,omitempty"`
	Exit   string `json:"exit,omitempty"`
	Signal string `json:"signal,omitempty"`
}

// readEvents reads the engine's events, or those of one container, until ctx ends. The engine remembers the latest 256, of all kinds together.
func (r *reader) readEvents(ctx context.Context) error {
	for away := 0; ; {
		began := time.Now()
		err := r.listen(ctx)
		var refused emitError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &refused):
			return refused.error
		}
		if time.Since(began) > awayMax {
			away = 0
		}
		if err := r.away(ctx, away, err); err != nil {
			return err
		}
		away++
	}
}

// listen reads until the engine goes away.
func (r *reader) listen(ctx context.Context) error {
	ctx, stop := r.e.watched(ctx)
	defer stop()
	asking, cancel := context.WithTimeout(ctx, callTimeout)
	_, err := r.e.client.Ping(asking, client.PingOptions{})
	cancel()
	if err != nil {
		return cmpCause(ctx, err)
	}
	o := client.EventsListOptions{Since: since(position{Time: r.began.UnixNano()})}
	if r.at.Time != 0 {
		o.Since = since(r.at.position)
	}
	if r.container != "" {
		o.Filters = client.Filters{}.Add("type", string(events.ContainerEventType))
	}
	res := resumption[events.Message]{want: r.at.position}
	answer := r.e.client.Events(ctx, o)
	defer func() { // the client's goroutine ends with ctx, and says so
		stop()
		for range answer.Err {
		}
	}()
	if r.at.Said == saidAway {
		if err := r.say("", "the Docker Engine answers again"); err != nil {
			return emitError{err}
		}
	}
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	for {
		var out []stamped[events.Message]
		var gap bool
		select {
		case m := <-answer.Messages:
			if !r.concerns(m) {
				continue
			}
			if len(res.held) == 0 {
				silence.Reset(quiet)
			}
			out, gap = res.take(m.TimeNano, m)
		case <-silence.C:
			if len(res.held) == 0 {
				continue
			}
			out, gap = res.giveUp()
		case err := <-answer.Err:
			return cmpCause(ctx, err)
		}
		if err := r.passEvents(out, gap); err != nil {
			return emitError{err}
		}
	}
}

// concerns reports whether an event is of the channel's container. The engine's own filter takes the beginning of a name, too.
func (r *reader) concerns(m events.Message) bool {
	if r.container == "" {
		return true
	}
	return m.Actor.Attributes["name"] == r.container || len(r.container) >= 12 && strings.HasPrefix(m.Actor.ID, r.container)
}

func (r *reader) passEvents(out []stamped[events.Message], gap bool) error {
	if gap {
		if err := r.gap("the engine no longer has the event that was the last reader's"); err != nil {
			return err
		}
	}
	for _, s := range out {
		m := s.item
		r.at.position, r.at.Said = s.position, ""
		data, err := json.Marshal(describe(m))
		if err != nil {
			return err
		}
		if err := r.emit(stream.Event{Time: time.Unix(0, m.TimeNano), Data: data, Cursor: r.at.String()}); err != nil {
			return err
		}
	}
	return nil
}

// describe takes what is worth showing. The command of an exec may hold a secret, and labels are the application's: both stay here.
func describe(m events.Message) event {
	a := m.Actor.Attributes
	action := string(m.Action)
	if strings.HasPrefix(action, "exec_") {
		action, _, _ = strings.Cut(action, ":")
	}
	return event{Type: short(string(m.Type)), Action: short(action), ID: short(m.Actor.ID), Name: short(a["name"]), Image: short(a["image"]),
		Exit: short(a["exitCode"]), Signal: short(a["signal"])}
}
