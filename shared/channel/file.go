package channel

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

//go:embed shipped.json
var shipped []byte

// Shipped is the table that Tideline ships with: shipped.json beside this file, in the form that CHANNELS_FILE takes.
func Shipped() *Table {
	t, err := Parse(shipped)
	if err != nil {
		panic(err) // it is compiled in, and a test reads it
	}
	return t
}

// fileBytes is the longest CHANNELS_FILE, in bytes.
const fileBytes = 1 << 20

// Load reads a table from a file; see Parse. An empty path is the shipped table.
func Load(path string) (*Table, error) {
	if path == "" {
		return Shipped(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, fileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > fileBytes {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, fileBytes)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// entry is a namespace as the file has it.
type entry struct {
	Name      string `json:"name"`
	Subscribe Access `json:"subscribe"`
	Publish   Access `json:"publish"`
	Token     bool   `json:"token"`
	Stamped   bool   `json:"stamped"`
	Binary    bool   `json:"binary"`
	History   struct {
		Size int      `json:"size"`
		TTL  duration `json:"ttl"`
	} `json:"history"`
	Recover     bool `json:"recover"`
	Presence    bool `json:"presence"`
	JoinLeave   bool `json:"joinLeave"`
	Ack         bool `json:"ack"`
	Newest      bool `json:"newest"`
	DataBytes   int  `json:"dataBytes"`
	PublishRate int  `json:"publishRate"`
}

// duration is a text such as "24h".
type duration time.Duration

func (d *duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("%s is not a duration such as \"24h\"", b)
	}
	v, err := time.ParseDuration(text)
	*d = duration(v)
	return err
}

// Parse reads a table from JSON: {"anonymous": bool, "namespaces": [{"name", "subscribe", "publish", "token", "stamped", "binary", "history": {"size", "ttl"},
// "recover", "presence", "joinLeave", "ack", "newest", "dataBytes", "publishRate"}]}. The error names the line of every mistake.
func Parse(data []byte) (*Table, error) {
	var file struct {
		Anonymous  bool              `json:"anonymous"`
		Namespaces []json.RawMessage `json:"namespaces"`
	}
	if err := strict(data, &file); err != nil {
		return nil, fmt.Errorf("line %d: %w", lineOf(data, 0, err), err)
	}
	t := &Table{byName: make(map[string]Namespace, len(file.Namespaces)), Anonymous: file.Anonymous}
	var errs []error
	if len(file.Namespaces) == 0 {
		errs = append(errs, errors.New("line 1: no namespaces"))
	}
	from := 0
	for _, raw := range file.Namespaces {
		from += bytes.Index(data[from:], raw) // RawMessages are the file's own bytes, in its order
		start := from
		from += len(raw)
		var e entry
		if err := strict(raw, &e); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", lineOf(data, start, err), err))
			continue
		}
		for _, m := range t.add(e.namespace()) {
			errs = append(errs, fmt.Errorf("line %d: namespace %q: %s", lineAt(data, start), e.Name, m))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

func (e entry) namespace() Namespace {
	return Namespace{Name: e.Name, Subscribe: e.Subscribe, Publish: e.Publish, Token: e.Token, Stamped: e.Stamped, Binary: e.Binary, HistorySize: e.History.Size,
		HistoryTTL: time.Duration(e.History.TTL), Recover: e.Recover, Presence: e.Presence, JoinLeave: e.JoinLeave, Ack: e.Ack, Newest: e.Newest,
		DataBytes: e.DataBytes, PublishRate: e.PublishRate}
}

// strict decodes one value with no unknown field and nothing after it.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the end")
	}
	return nil
}

// lineOf finds the line of a decoding error in a value that starts at start: by its offset, or by the unknown field's name.
func lineOf(data []byte, start int, err error) int {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return lineAt(data, start+int(syntax.Offset))
	case errors.As(err, &kind):
		return lineAt(data, start+int(kind.Offset))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return lineAt(data, len(data))
	}
	const unknown = `json: unknown field `
	if text := err.Error(); len(text) > len(unknown) && text[:len(unknown)] == unknown {
		if at := bytes.Index(data[start:], []byte(text[len(unknown):])); at >= 0 {
			return lineAt(data, start+at)
		}
	}
	return lineAt(data, start)
}

func lineAt(data []byte, at int) int { return 1 + bytes.Count(data[:min(at, len(data))], []byte{'\n'}) }
