package conn

import (
	"bytes"
	"strconv"

	"github.com/centrifugal/protocol"
)

// Frames of HTTP streams. Each is one whole chunk of a chunked response (RFC 9112, section 7.1), so that a frame is shared among subscribers
// as a WebSocket frame is, and what a client or a proxy gets at once is whole messages.

// chunkRoom is the longest header of a chunk: its size in hexadecimal digits, and a line's end.
const chunkRoom = 8 + len("\r\n")

// lastChunk ends the response.
const lastChunk = "0\r\n\r\n"

// chunk makes one chunk of what build appends, which must not be nothing: that would be the last one.
func chunk(build func([]byte) []byte) []byte {
	b := build(make([]byte, chunkRoom, chunkRoom+246))
	var digits [16]byte
	size := append(strconv.AppendInt(digits[:0], int64(len(b)-chunkRoom), 16), "\r\n"...)
	b = append(b, "\r\n"...)
	at := chunkRoom - len(size)
	copy(b[at:], size)
	return b[at:]
}

// lastPush is the bye of a stream: HTTP has no close code, so the code comes as a push.
func lastPush(encode func([]byte, *protocol.Reply, bool) []byte) func(disconnect) []byte {
	return func(d disconnect) []byte {
		r := &protocol.Reply{Push: &protocol.Push{Disconnect: &protocol.Disconnect{Code: uint32(d.code), Reason: d.reason}}}
		return append(chunk(func(b []byte) []byte { return encode(b, r, true) }), lastChunk...)
	}
}

// appendLineJSON ends each reply with a newline: a stream's reader can't tell otherwise that it is whole.
func appendLineJSON(b []byte, r *protocol.Reply, _ bool) []byte {
	return append(oneLine(r.AppendJSON(b), len(b)), '\n')
}

// appendEventJSON makes each reply an event of its own.
func appendEventJSON(b []byte, r *protocol.Reply, _ bool) []byte {
	return appendEvent(b, r.AppendJSON)
}

func appendEvent(b []byte, data func([]byte) []byte) []byte {
	b = append(b, "data: "...)
	return append(oneLine(data(b), len(b)), "\n\n"...)
}

// oneLine replaces line breaks from a position on by spaces. In JSON they only stand between tokens; here they would end a message. What
// servers publish is compact already, what a token's claims hold may not be.
func oneLine(b []byte, from int) []byte {
	for _, c := range []byte{'\n', '\r'} {
		for at := from; ; {
			i := bytes.IndexByte(b[at:], c)
			if i < 0 {
				break
			}
			at += i
			b[at] = ' '
		}
	}
	return b
}

func appendPingLine(b []byte) []byte  { return append(b, "{}\n"...) }
func appendPingEvent(b []byte) []byte { return append(b, "data: {}\n\n"...) }
