package conn

import (
	"bytes"

	"github.com/centrifugal/protocol"
	"github.com/gorilla/websocket"

	"tideline/node/hub"
	"tideline/shared/bus"
	"tideline/shared/channel"
)

// Formats: an encoding of messages, and how a transport frames them.
const (
	formatJSON           hub.Format = iota // WebSocket text frames
	formatJSONDeflate                      // the same, compressed
	formatProtobuf                         // WebSocket binary frames
	formatUniJSON                          // WebSocket text frames of pushes alone
	formatStreamJSON                       // lines in chunks of an HTTP response
	formatStreamProtobuf                   // the same with length-delimited messages
	formatSSE                              // server-sent events in chunks of an HTTP response
	formatUniSSE                           // the same, pushes alone
	formatUniSSEOne                        // the same with ids, for connections with one recoverable subscription: the hub's alone
)

// format is what differs between formats. All of it is safe for concurrent use; frames are shared and must not be changed.
type format struct {
	// binary: publications may be bytes that are no JSON.
	binary bool
	// message is the type of the WebSocket messages that a client sends.
	message int
	// stream: an HTTP response. Nothing is read after the request, and bye is its end.
	stream bool
	// encode appends one reply; each but the first of a frame follows another.
	encode func(b []byte, r *protocol.Reply, first bool) []byte
	// frame makes what goes to the socket at once of what build appends.
	frame func(build func([]byte) []byte) []byte
	// ping is the frame of the server's ping, an empty reply.
	ping []byte
	// mute: nobody answers a ping.
	mute bool
	// bye is the last frame.
	bye func(disconnect) []byte
	// commands reads what a client sends; nil, with count and pong, where nothing is sent but the request to connect.
	commands func(data []byte) commandDecoder
	// count is about how many commands a client's message has, without reading them: at least one.
	count func(data []byte) int
	// pong reports whether a client's message is nothing but the answer to a ping.
	pong func(data []byte) bool
}

// commandDecoder answers a client's commands in order; the last one may come with io.EOF.
type commandDecoder interface {
	Decode() (*protocol.Command, error)
}

var formats = [hub.Formats]format{
	formatJSON: {
		message: websocket.TextMessage, encode: appendJSON, commands: jsonCommands, count: countJSON, pong: isJSONPong,
		frame: textFrame, ping: textFrame(appendEmptyJSON), bye: closeFrame,
	},
	formatJSONDeflate: {
		message: websocket.TextMessage, encode: appendJSON, commands: jsonCommands, count: countJSON, pong: isJSONPong,
		frame: deflatedTextFrame, ping: textFrame(appendEmptyJSON), bye: closeFrame,
	},
	formatProtobuf: {
		binary: true, message: websocket.BinaryMessage, encode: appendProtobuf, commands: protobufCommands, count: countProtobuf, pong: isProtobufPong,
		frame: binaryFrame, ping: binaryFrame(appendEmptyProtobuf), bye: closeFrame,
	},
	formatUniJSON: {
		message: websocket.TextMessage, encode: appendPushJSON, frame: textFrame, ping: pushAndPing(), bye: pushAndClose,
	},
	formatStreamJSON: {
		stream: true, encode: appendLineJSON, commands: jsonCommands, count: countJSON, pong: isJSONPong,
		frame: chunk, ping: chunk(appendPingLine), bye: lastPush(appendLineJSON),
	},
	formatStreamProtobuf: {
		stream: true, binary: true, encode: appendProtobuf, commands: protobufCommands, count: countProtobuf, pong: isProtobufPong,
		frame: chunk, ping: chunk(appendEmptyProtobuf), bye: lastPush(appendProtobuf),
	},
	formatSSE: {
		stream: true, encode: appendEventJSON, commands: jsonCommands, count: countJSON, pong: isJSONPong,
		frame: chunk, ping: chunk(appendPingEvent), bye: lastPush(appendEventJSON),
	},
	formatUniSSE:    {stream: true, encode: appendPushEvent, frame: chunk, ping: chunk(appendPingEvent), mute: true, bye: lastEvent},
	formatUniSSEOne: {stream: true, encode: appendPushEvent, frame: chunk},
}

func textFrame(build func([]byte) []byte) []byte         { return frame(opText, build) }
func deflatedTextFrame(build func([]byte) []byte) []byte { return deflated(opText, build) }
func binaryFrame(build func([]byte) []byte) []byte       { return frame(opBinary, build) }

// pushAndPing is the ping of pushes, which nobody answers, and that of the WebSocket, which every client answers without being asked to.
func pushAndPing() []byte {
	return append(textFrame(appendEmptyJSON), frame(opPing, func(b []byte) []byte { return b })...)
}

// pushAndClose says goodbye twice: a unidirectional client need not look at close frames.
func pushAndClose(d disconnect) []byte {
	said := textFrame(func(b []byte) []byte {
		return (&protocol.Push{Disconnect: &protocol.Disconnect{Code: uint32(d.code), Reason: d.reason}}).AppendJSON(b)
	})
	return append(said, closeFrame(d)...)
}

// appendJSON separates replies by newlines.
func appendJSON(b []byte, r *protocol.Reply, first bool) []byte {
	if !first {
		b = append(b, '\n')
	}
	return r.AppendJSON(b)
}

func appendEmptyJSON(b []byte) []byte { return append(b, "{}"...) }

func jsonCommands(data []byte) commandDecoder {
	return protocol.NewJSONCommandDecoder(bytes.TrimSpace(data))
}

var newline = []byte{'\n'}

func countJSON(data []byte) int { return 1 + bytes.Count(bytes.TrimSpace(data), newline) }

func isJSONPong(data []byte) bool { return string(bytes.TrimSpace(data)) == "{}" }

// appendPushJSON is appendJSON without the reply around a push.
func appendPushJSON(b []byte, r *protocol.Reply, first bool) []byte {
	if !first {
		b = append(b, '\n')
	}
	return r.Push.AppendJSON(b)
}

// replyFrame encodes a reply, or a push in one, in a format.
func replyFrame(f hub.Format, r *protocol.Reply) []byte {
	form := &formats[f]
	return form.frame(func(b []byte) []byte { return form.encode(b, r, true) })
}

// repliesFrame encodes several replies in one frame.
func repliesFrame(f hub.Format, replies []*protocol.Reply) []byte {
	form := &formats[f]
	return form.frame(func(b []byte) []byte {
		for i, r := range replies {
			b = form.encode(b, r, i == 0)
		}
		return b
	})
}

func pushFrame(f hub.Format, p *protocol.Push) []byte {
	return replyFrame(f, &protocol.Reply{Push: p})
}

// fits reports whether a publication can be had in a format.
func fits(f hub.Format, p *bus.Publication) bool { return !p.Binary || formats[f].binary }

// encoder implements hub.Encoder.
type encoder struct{ table *channel.Table }

func (e encoder) Publication(f hub.Format, name, epoch string, p *bus.Publication) []byte {
	if !fits(f, p) {
		return nil
	}
	push := &protocol.Push{Channel: name, Pub: wirePublication(p)}
	if f == formatUniSSEOne && recoverable(e.table, name) {
		return chunk(func(b []byte) []byte {
			return appendPushWithID(b, push, place{name, bus.Position{Epoch: epoch, Offset: p.Offset}})
		})
	}
	return pushFrame(f, push)
}

func (encoder) Member(f hub.Format, name string, joined bool, info bus.ClientInfo) []byte {
	push := &protocol.Push{Channel: name}
	if joined {
		push.Join = &protocol.Join{Info: wireInfo(&info)}
	} else {
		push.Leave = &protocol.Leave{Info: wireInfo(&info)}
	}
	return pushFrame(f, push)
}

func wirePublication(p *bus.Publication) *protocol.Publication {
	return &protocol.Publication{Data: protocol.Raw(p.Data), Offset: p.Offset, Info: wireInfo(p.Info), Tags: p.Tags}
}

func wireInfo(i *bus.ClientInfo) *protocol.ClientInfo {
	if i == nil {
		return nil
	}
	return &protocol.ClientInfo{User: i.User, Client: i.Client, ConnInfo: protocol.Raw(i.ConnInfo), ChanInfo: protocol.Raw(i.ChanInfo)}
}
