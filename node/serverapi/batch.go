package serverapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
)

const (
	// BatchCommands is the most commands of one request, as a batch or as lines. Error 106 past it.
	BatchCommands = 1000
	// batchAtOnce is how many commands of one parallel batch are under way together.
	batchAtOnce = 16
)

type batchRequest struct {
	Commands []map[string]json.RawMessage `json:"commands"`
	Parallel bool                         `json:"parallel"`
}

// batchReply is a whole answer: replies don't stand below a result.
type batchReply struct {
	Replies []map[string]any `json:"replies"`
}

func batch(ctx context.Context, a *API, req batchRequest) (any, error) {
	switch n := len(req.Commands); {
	case n == 0:
		return nil, because(errBadRequest, "commands: none")
	case n > BatchCommands:
		return nil, because(errLimitExceeded, "commands: %d, at most %d", n, BatchCommands)
	}
	replies := make([]map[string]any, len(req.Commands))
	var g errgroup.Group
	g.SetLimit(1)
	if req.Parallel {
		g.SetLimit(batchAtOnce)
	}
	for i, cmd := range req.Commands {
		g.Go(func() error {
			replies[i] = a.batched(ctx, cmd)
			return nil
		})
	}
	return batchReply{replies}, g.Wait()
}

// batched runs one command of a batch: an object whose one field is named by the method.
func (a *API) batched(ctx context.Context, cmd map[string]json.RawMessage) map[string]any {
	if len(cmd) != 1 {
		return map[string]any{"error": because(errBadRequest, "a command is an object with one field, named as its method")}
	}
	for name, params := range cmd {
		if result := a.run(ctx, name, params); result.Error != nil {
			return map[string]any{"error": result.Error}
		} else {
			return map[string]any{name: result.Result}
		}
	}
	return nil
}

// run runs one of several commands.
func (a *API) run(ctx context.Context, name string, params []byte) reply {
	if name == "batch" {
		return reply{Error: because(errBadRequest, "a batch in a batch")}
	}
	if ctx.Err() != nil {
		return reply{Error: because(errInternal, "the request's time of %v was over before", RequestBudget)}
	}
	m, ok := a.methods[name]
	if !ok {
		return reply{Error: because(errNotFound, "no such method")}
	}
	result, err := m(ctx, a, params)
	if err != nil {
		a.note(err)
		return reply{Error: errorOf(err)}
	}
	return reply{Result: result}
}

// command is one line.
type command struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// lines runs commands that follow one another, and answers as many replies. Where one can't be read nothing is run.
func (a *API) lines(ctx context.Context, body []byte) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	if !utf8.Valid(body) {
		return nil, because(errBadRequest, "not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var commands []command
	for {
		var c command
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, misread(err)
		}
		if len(commands) == BatchCommands {
			return nil, because(errLimitExceeded, "more than %d commands", BatchCommands)
		}
		commands = append(commands, c)
	}
	if len(commands) == 0 {
		return nil, because(errBadRequest, "no command")
	}
	replies := make([]any, len(commands))
	for i, c := range commands {
		if !given(c.Params) {
			c.Params = nil
		}
		replies[i] = a.run(ctx, c.Method, c.Params)
	}
	return replies, nil
}
