package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"
)

// What travels on a pub/sub channel is two lines and the data as it was given:
//
//	<version> <kind> <epoch> <offset>\n
//	<header: one JSON object without line breaks>\n
//	<data>
//
// kind is p (publication), b (publication of bytes that are no JSON), j (join) or l (leave); joins and leaves have "-" for the epoch, offset 0,
// no data, and say who in the header's info. Fields of the header that a build does not know are ignored. A build reads its own version and the
// previous one, because a rolling deploy mixes them; a message of another version or kind counts as one that was missed. A stream entry holds
// header and data, in fields h and d, or b for bytes: a build that doesn't know b reads a publication without data, never bytes as JSON.
const (
	envelopeVersion = 1
	kindPublication = 'p'
	kindBinary      = 'b'
	kindJoin        = 'j'
	kindLeave       = 'l'
	kindRemoved     = 'r' // history up to this offset; empty header, no data

	fieldHeader = "h"
	fieldData   = "d"
	fieldBinary = "b"
)

// written is the kind and the stream field of a publication.
func (p *Publication) written() (kind, field string) {
	if p.Binary {
		return string(kindBinary), fieldBinary
	}
	return string(kindPublication), fieldData
}

var (
	errEnvelope        = errors.New("malformed envelope")
	errEnvelopeVersion = errors.New("unknown envelope version")
)

// header is the JSON object of an envelope and of a stream entry.
type header struct {
	ID   string            `json:"id,omitempty"`
	Time int64             `json:"time,omitempty"`
	Info *ClientInfo       `json:"info,omitempty"`
	Tags map[string]string `json:"tags,omitempty"`
}

// encodeHeader makes one line of JSON; it fails on a raw message in info that is no JSON.
func encodeHeader(h header) ([]byte, error) {
	line, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("%w: client info: %w", ErrInvalid, err)
	}
	return line, nil
}

// memberEnvelope is the whole message that announces a join or a leave; a script publishes it as it is.
func memberEnvelope(kind byte, info ClientInfo) (string, error) {
	line, err := encodeHeader(header{Info: &info})
	if err != nil {
		return "", err
	}
	return strconv.Itoa(envelopeVersion) + " " + string(kind) + " - 0\n" + string(line) + "\n", nil
}

// parseEnvelope reads a message. Strings and Data of the result alias payload: Data must not be written to.
func parseEnvelope(payload string) (Message, error) {
	first, rest, ok := strings.Cut(payload, "\n")
	if !ok {
		return Message{}, errEnvelope
	}
	version, first, _ := strings.Cut(first, " ")
	if v, err := strconv.ParseUint(version, 10, 31); err != nil {
		return Message{}, errEnvelope
	} else if v != envelopeVersion {
		return Message{}, errEnvelopeVersion
	}
	kind, first, _ := strings.Cut(first, " ")
	epoch, offset, ok := strings.Cut(first, " ")
	if !ok || len(kind) != 1 || epoch == "" {
		return Message{}, errEnvelope
	}
	line, data, ok := strings.Cut(rest, "\n")
	if !ok {
		return Message{}, errEnvelope
	}
	h, err := parseHeader(line)
	if err != nil {
		return Message{}, err
	}
	switch kind[0] {
	case kindPublication, kindBinary:
		n, err := strconv.ParseUint(offset, 10, 64)
		if err != nil || n == 0 || !strings.Contains(epoch, ".") {
			return Message{}, errEnvelope
		}
		p := publication(h, n, data)
		p.Binary = kind[0] == kindBinary
		return Message{Kind: KindPublication, Epoch: epoch, Publication: p}, nil
	case kindRemoved:
		n, err := strconv.ParseUint(offset, 10, 64)
		if err != nil || !strings.Contains(epoch, ".") {
			return Message{}, errEnvelope
		}
		return Message{Kind: KindRemoved, Epoch: epoch, Publication: Publication{Offset: n}}, nil
	case kindJoin, kindLeave:
		if h.Info == nil {
			return Message{}, errEnvelope
		}
		m := Message{Kind: KindJoin, Info: *h.Info}
		if kind[0] == kindLeave {
			m.Kind = KindLeave
		}
		return m, nil
	}
	return Message{}, errEnvelope
}

// publication puts what was read together. The channel is for the caller to set.
func publication(h header, offset uint64, data string) Publication {
	return Publication{Data: readOnly(data), ID: h.ID, Time: h.Time, Info: h.Info, Tags: h.Tags, Offset: offset}
}

// readOnly is the bytes of s without a copy.
func readOnly(s string) []byte {
	return unsafe.Slice(unsafe.StringData(s), len(s))
}

// parseHeader reads the object that encodeHeader makes. What servers publish has only id and time, in that order and with nothing to
// unescape: that form is read without the JSON decoder.
func parseHeader(line string) (header, error) {
	if h, ok := parsePlainHeader(line); ok {
		return h, nil
	}
	var h header
	if err := json.Unmarshal(readOnly(line), &h); err != nil {
		return header{}, fmt.Errorf("%w: %w", errEnvelope, err)
	}
	return h, nil
}

func parsePlainHeader(line string) (header, bool) {
	rest, ok := strings.CutPrefix(line, `{"id":"`)
	if !ok {
		return header{}, false
	}
	end := 0
	for ; end < len(rest) && rest[end] != '"'; end++ {
		if c := rest[end]; c < ' ' || c > '~' || c == '\\' {
			return header{}, false
		}
	}
	if end == len(rest) {
		return header{}, false
	}
	id := rest[:end]
	digits, ok := strings.CutPrefix(rest[end:], `","time":`)
	if !ok {
		return header{}, false
	}
	digits, ok = strings.CutSuffix(digits, "}")
	if !ok || digits == "" || digits[0] < '1' || digits[0] > '9' {
		return header{}, false
	}
	ms, err := strconv.ParseInt(digits, 10, 64)
	return header{ID: id, Time: ms}, err == nil
}
