package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func envelope(t testing.TB, h header, data string) string {
	t.Helper()
	line, err := encodeHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	return "1 p 0123456789abcdef.fedcba9876543210 42\n" + string(line) + "\n" + data
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	info := &ClientInfo{User: "u", Client: "c", ConnInfo: json.RawMessage(`{"a":"\n"}`)}
	for _, h := range []header{
		{},
		{ID: "plain", Time: 1234567890123},
		{ID: `quote " and \ and` + "\nline", Time: 1},
		{ID: "ü", Time: 5},
		{ID: "x", Time: -5},
		{ID: "i", Time: 1, Info: info, Tags: map[string]string{"a": "b"}},
		{Tags: map[string]string{"": ""}},
	} {
		for _, data := range []string{"", "x", "\n\n", "1 p e.0 1\n{}\n"} {
			m, err := parseEnvelope(envelope(t, h, data))
			if err != nil {
				t.Errorf("%+v: %v", h, err)
				continue
			}
			got := header{m.Publication.ID, m.Publication.Time, m.Publication.Info, m.Publication.Tags}
			if m.Kind != KindPublication || m.Epoch != "0123456789abcdef.fedcba9876543210" || m.Publication.Offset != 42 ||
				string(m.Publication.Data) != data || !reflect.DeepEqual(got, h) {
				t.Errorf("%+v with data %q came back as %+v", h, data, m)
			}
		}
	}
	for kind, want := range map[byte]Kind{kindJoin: KindJoin, kindLeave: KindLeave} {
		raw, err := memberEnvelope(kind, *info)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := parseEnvelope(raw); err != nil || m.Kind != want || !reflect.DeepEqual(m.Info, *info) || m.Epoch != "" {
			t.Errorf("%q came back as %+v, %v", raw, m, err)
		}
	}
}

func TestEnvelopeRefuses(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]error{
		"":                                   errEnvelope,
		"1 p e.0 1":                          errEnvelope,
		"1 p e.0 1\n{}":                      errEnvelope,
		"1 p e.0 1\n{\n":                     errEnvelope,
		"1 p e.0 1\n[]\n":                    errEnvelope,
		"1 p e.0 0\n{}\n":                    errEnvelope,
		"1 p e.0 -1\n{}\n":                   errEnvelope,
		"1 p e.0 1 2\n{}\n":                  errEnvelope,
		"1 p  1\n{}\n":                       errEnvelope,
		"1 p e 1\n{}\n":                      errEnvelope,
		"1 q e.0 1\n{}\n":                    errEnvelope,
		"1 pp e.0 1\n{}\n":                   errEnvelope,
		"1 j - 0\n{}\n":                      errEnvelope,
		"x p e.0 1\n{}\n":                    errEnvelope,
		"-1 p e.0 1\n{}\n":                   errEnvelope,
		"0 p e.0 1\n{}\n":                    errEnvelopeVersion,
		"2 p e.0 1\n{}\n":                    errEnvelopeVersion,
		"2 whatever comes later\n\n":         errEnvelopeVersion,
		"1 p e.0 18446744073709551616\n{}\n": errEnvelope,
	} {
		if m, err := parseEnvelope(raw); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v, want %v", raw, m, err, want)
		}
	}
}

func TestUnknownHeaderFieldsAreIgnored(t *testing.T) {
	t.Parallel()
	m, err := parseEnvelope("1 p e.0 7\n" + `{"id":"i","time":3,"later":[1,2],"info":{"user":"u","more":1}}` + "\nx")
	if err != nil || m.Publication.ID != "i" || m.Publication.Time != 3 || m.Publication.Info.User != "u" {
		t.Errorf("%+v, %v", m, err)
	}
}

// What servers publish is read without an allocation: this is the hot path of every node.
func TestParsingAllocatesNothing(t *testing.T) {
	raw := envelope(t, header{ID: "todo-1:42", Time: 1234567890123}, strings.Repeat("x", 1000))
	n := testing.AllocsPerRun(1000, func() {
		m, err := parseEnvelope(raw)
		if err != nil || m.Publication.Offset != 42 {
			t.Fatal(m, err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add("1 p e.0 1\n{\"id\":\"i\",\"time\":1}\ndata")
	f.Add("1 j - 0\n{\"info\":{\"user\":\"u\",\"client\":\"c\"}}\n")
	f.Add("1 r e.0 7\n{}\n")
	f.Add("2 p e.0 1\n{}\n")
	f.Add("1 p e.0 1\n{\"id\":\"a\\u0000\",\"tags\":{\"a\":\"b\"}}\n\n")
	f.Fuzz(func(t *testing.T, raw string) {
		m, err := parseEnvelope(raw)
		if err != nil {
			if !errors.Is(err, errEnvelope) && !errors.Is(err, errEnvelopeVersion) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		switch m.Kind {
		case KindPublication:
			if m.Publication.Offset == 0 || m.Epoch == "" || !strings.HasSuffix(raw, string(m.Publication.Data)) {
				t.Errorf("%q gave %+v", raw, m)
			}
		case KindJoin, KindLeave:
		case KindRemoved:
			if m.Epoch == "" {
				t.Errorf("%q gave %+v", raw, m)
			}
		default:
			t.Errorf("kind %d", m.Kind)
		}
	})
}

// The quick reader of headers and the JSON decoder must agree wherever both can read.
func FuzzHeader(f *testing.F) {
	f.Add(`{"id":"i","time":1}`)
	f.Add(`{"id":"i","time":01}`)
	f.Add(`{"id":"","time":9223372036854775808}`)
	f.Fuzz(func(t *testing.T, line string) {
		quick, ok := parsePlainHeader(line)
		if !ok {
			return
		}
		var slow header
		if err := json.Unmarshal([]byte(line), &slow); err != nil {
			t.Fatalf("%q: read as %+v, and is no JSON: %v", line, quick, err)
		}
		if !reflect.DeepEqual(quick, slow) {
			t.Errorf("%q: %+v, JSON says %+v", line, quick, slow)
		}
	})
}

// FuzzReply builds replies of any shape out of bytes and gives them to every function that reads one: none may panic, and what is not
// understood is ErrUnavailable or a malformed reply, never a position.
func FuzzReply(f *testing.F) {
	f.Add([]byte("(s9:published;s3:e.0;s1:1;)"))
	f.Add([]byte("(s3:e.0;s1:1;((s3:1-0;(s1:h;s2:{};s1:d;s1:x;))))"))
	f.Add([]byte("(i)"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		reply, _ := replyFrom(raw, 0)
		b := &Bus{}
		if res, err := parseResult(reply); err == nil && res.Position.Epoch == "" {
			t.Errorf("%v gave %+v", reply, res)
		} else if err != nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrFenced) {
			t.Errorf("%v gave %v", reply, err)
		}
		if pos, err := b.parseTop(reply); err == nil && pos.Epoch == "" {
			t.Errorf("%v gave %+v", reply, pos)
		}
		pubs, err := parseEntries("c", reply)
		for _, p := range pubs {
			if err != nil || p.Channel != "c" {
				t.Errorf("%v gave %+v, %v", reply, p, err)
			}
		}
	})
}

// replyFrom reads "(" values ")" as an array, "s" length ":" bytes ";" as a string, "i" as a number and anything else as nil.
func replyFrom(raw []byte, depth int) (any, []byte) {
	if len(raw) == 0 {
		return nil, nil
	}
	switch raw[0] {
	case '(':
		var values []any
		rest := raw[1:]
		for len(rest) > 0 && rest[0] != ')' && depth < 8 {
			var v any
			v, rest = replyFrom(rest, depth+1)
			values = append(values, v)
		}
		if len(rest) > 0 {
			rest = rest[1:]
		}
		return values, rest
	case 's':
		var n int
		if _, err := fmt.Sscanf(string(raw[1:min(len(raw), 6)]), "%d:", &n); err != nil || n < 0 {
			return "", raw[1:]
		}
		start := strings.IndexByte(string(raw), ':') + 1
		end := min(start+n, len(raw))
		return string(raw[start:end]), raw[min(end+1, len(raw)):]
	case 'i':
		return int64(len(raw)), raw[1:]
	}
	return nil, raw[1:]
}
