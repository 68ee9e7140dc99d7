package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// DepthMax is the deepest nesting of objects and arrays in a body.
const DepthMax = 32

// StrictJSON answers an error that a caller may see unless b is exactly one JSON value, in valid UTF-8, without duplicate keys in any object and nested
// at most DepthMax deep. encoding/json alone accepts the first three, and which of two equal keys wins differs between readers.
func StrictJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("the body is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var open []level
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			if len(open) == 0 && d.InputOffset() > 0 {
				return nil
			}
			return errors.New("the body ends inside a JSON value")
		}
		if err != nil {
			return fmt.Errorf("the body is not JSON: %s", syntax(err))
		}
		if delim, ok := t.(json.Delim); ok && (delim == '{' || delim == '[') {
			if len(open) == DepthMax {
				return fmt.Errorf("the body is nested more than %d deep", DepthMax)
			}
			open = append(open, level{object: delim == '{', key: delim == '{'})
			continue
		}
		if open, err = step(open, t); err != nil {
			return err
		}
		if len(open) == 0 {
			return end(d)
		}
	}
}

// level is one object or array that is being read.
type level struct {
	object bool
	key    bool // an object's next token is a key
	seen   map[string]struct{}
}

// step takes a token that opens nothing.
func step(open []level, t json.Token) ([]level, error) {
	if _, closes := t.(json.Delim); closes {
		open = open[:len(open)-1]
	}
	if len(open) == 0 {
		return open, nil
	}
	top := &open[len(open)-1]
	if !top.object {
		return open, nil
	}
	if !top.key {
		top.key = true
		return open, nil
	}
	name, ok := t.(string)
	if !ok { // the object that was just closed was this one's value
		return open, nil
	}
	if _, twice := top.seen[name]; twice {
		return open, fmt.Errorf("the key %q appears twice", clip(name, 64))
	}
	if top.seen == nil {
		top.seen = map[string]struct{}{}
	}
	top.seen[name] = struct{}{}
	top.key = false
	return open, nil
}

// end makes sure that nothing follows the value.
func end(d *json.Decoder) error {
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the body has more than one JSON value")
	}
	return nil
}

func syntax(err error) string {
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return fmt.Sprintf("%s at byte %d", s.Error(), s.Offset)
	}
	return "unexpected end"
}

func init() {
	// encoding/json matches keys whatever their case, so {"title":"a","TITLE":""} would be validated as one and stored as the other.
	huma.ValidateStrictCasing = true
}

// unmarshal is huma's way into a body: once into any, for validation, then into the operation's type.
func unmarshal(b []byte, v any) error {
	if _, first := v.(*any); first {
		if err := StrictJSON(b); err != nil {
			return err
		}
	}
	return json.Unmarshal(b, v)
}
