package conn

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/centrifugal/protocol"
)

// The Protobuf format: each message stands behind its length, a varint, and a frame has as many as it has.

var errTruncated = errors.New("truncated message")

// appendProtobuf appends one message with its length.
func appendProtobuf(b []byte, r *protocol.Reply, _ bool) []byte {
	n := r.SizeCF()
	b = binary.AppendUvarint(b, uint64(n))
	b = slices.Grow(b, n)
	at := len(b)
	b = b[:at+n]
	if _, err := r.MarshalToSizedBufferCF(b[at:]); err != nil {
		panic(err) // the generated code has no error of its own
	}
	return b
}

// appendEmptyProtobuf appends a message of no length: the ping.
func appendEmptyProtobuf(b []byte) []byte { return append(b, 0) }

// protobufDecoder reads commands of one message. Unlike the library's it takes a length that breaks off for an error, not for the end.
type protobufDecoder struct{ rest []byte }

func protobufCommands(data []byte) commandDecoder { return &protobufDecoder{data} }

func (d *protobufDecoder) Decode() (*protocol.Command, error) {
	one, rest, ok := cutProtobuf(d.rest)
	if !ok {
		return nil, errTruncated
	}
	d.rest = rest
	cmd := new(protocol.Command)
	if err := cmd.UnmarshalCF(one); err != nil {
		return nil, err
	}
	if len(rest) == 0 {
		return cmd, io.EOF
	}
	return cmd, nil
}

// cutProtobuf takes the first message off.
func cutProtobuf(data []byte) (one, rest []byte, ok bool) {
	n, width := binary.Uvarint(data)
	if width <= 0 || n > uint64(len(data)-width) {
		return nil, nil, false
	}
	return data[width : width+int(n)], data[width+int(n):], true
}

func countProtobuf(data []byte) int {
	n := 0
	for len(data) > 0 {
		n++
		_, rest, ok := cutProtobuf(data)
		if !ok {
			break // which is found again, and refused, when its turn comes
		}
		data = rest
	}
	return max(1, n)
}

func isProtobufPong(data []byte) bool { return len(data) == 1 && data[0] == 0 }
