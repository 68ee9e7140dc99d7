package serverapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"tideline/shared/limit"
)

// method runs a command by its parameters as they came.
type method func(ctx context.Context, a *API, params []byte) (any, error)

// with makes a method of one that takes parameters of its own type.
func with[R any](do func(ctx context.Context, a *API, req R) (any, error)) method {
	return func(ctx context.Context, a *API, params []byte) (any, error) {
		var req R
		if err := decode(params, &req); err != nil {
			return nil, err
		}
		return do(ctx, a, req)
	}
}

// within is with, bounded by RequestBudget.
func within[R any](do func(ctx context.Context, a *API, req R) (any, error)) method {
	m := with(do)
	return func(ctx context.Context, a *API, params []byte) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, RequestBudget)
		defer cancel()
		return m(ctx, a, params)
	}
}

// methodsByName are those of paths, batches and lines. A publication is the sockets' to bound, by limit.CommandBudget.
func methodsByName() map[string]method {
	return map[string]method{
		"publish": with(publish), "broadcast": within(broadcast),
		"subscribe": within(subscribe), "unsubscribe": within(unsubscribe), "disconnect": within(disconnect), "refresh": within(refresh), "send": within(send),
		"history": within(history), "history_remove": within(historyRemove), "presence": within(presence), "presence_stats": within(presenceStats),
		"channels": within(channels), "connections": within(connections), "info": within(info), "rpc": within(rpc), "batch": within(batch),
	}
}

// decode reads one JSON object into a struct. The error names the field that is wrong, or is too many.
func decode(raw []byte, into any) error {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil // as {}
	}
	if !utf8.Valid(raw) {
		return because(errBadRequest, "not UTF-8")
	}
	if raw[0] != '{' {
		return because(errBadRequest, "not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return misread(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return because(errBadRequest, "something stands behind the JSON object")
	}
	return nil
}

func misread(err error) *Error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return because(errBadRequest, "not JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind) && kind.Field != "":
		field := strings.TrimPrefix(strings.TrimPrefix(kind.Field, "publication."), "whom.") // embedded structs are Go's business
		return because(errBadRequest, "%s: a JSON %s is not taken there", field, kind.Value)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return because(errBadRequest, "the JSON has no end")
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return because(errBadRequest, "unknown field %s", field)
	}
	return because(errBadRequest, "not understood")
}

// given reports whether a field that may be any JSON was sent; null is as good as none.
func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// unpacked is the data of a field, or of the one beside it in base64; nil where neither was sent.
func unpacked(field string, raw json.RawMessage, b64 string) ([]byte, error) {
	switch {
	case b64 == "" && !given(raw):
		return nil, nil
	case b64 == "":
		return raw, nil
	case given(raw):
		return nil, because(errBadRequest, "%s and b64%s exclude each other", field, field)
	}
	b, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		return nil, because(errBadRequest, "b64%s: not base64", field)
	}
	return b, nil
}

// unpackedJSON is unpacked where only JSON will do, made compact.
func unpackedJSON(field string, raw json.RawMessage, b64 string) (json.RawMessage, error) {
	b, err := unpacked(field, raw, b64)
	if b == nil || err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if !utf8.Valid(b) || json.Compact(&compact, b) != nil {
		return nil, because(errNotAvailable, "b64%s: only JSON", field)
	}
	if compact.Len() > limit.OrderBytes {
		return nil, because(errLimitExceeded, "%s: at most %d bytes", field, limit.OrderBytes)
	}
	return compact.Bytes(), nil
}

// reply is the answer to one command.
type reply struct {
	Result any    `json:"result,omitempty"`
	Error  *Error `json:"error,omitempty"`
}

// nothing is the result of what has none.
type nothing struct{}
