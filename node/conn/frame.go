package conn

import (
	"encoding/binary"

	"github.com/centrifugal/protocol"

	"tideline/node/hub"
	"tideline/shared/bus"
)

// formatJSON is the only format so far: JSON in WebSocket text frames.
const formatJSON hub.Format = 0

// headerRoom is the longest header of a server's frame (RFC 6455, section 5.2): 2 bytes and a 64-bit length.
const headerRoom = 10

const (
	opText  = 0x1
	opClose = 0x8
)

// frame makes one final WebSocket frame, unmasked, of what build appends.
func frame(opcode byte, build func([]byte) []byte) []byte {
	b := build(make([]byte, headerRoom, headerRoom+246))
	n := len(b) - headerRoom
	var at int
	switch {
	case n < 126:
		at = headerRoom - 2
		b[at+1] = byte(n)
	case n < 1<<16:
		at = headerRoom - 4
		b[at+1] = 126
		binary.BigEndian.PutUint16(b[at+2:], uint16(n))
	default:
		at = 0
		b[at+1] = 127
		binary.BigEndian.PutUint64(b[at+2:], uint64(n))
	}
	b[at] = 0x80 | opcode
	return b[at:]
}

func replyFrame(r *protocol.Reply) []byte { return frame(opText, r.AppendJSON) }

func pushFrame(p *protocol.Push) []byte { return replyFrame(&protocol.Reply{Push: p}) }

func closeFrame(d disconnect) []byte {
	return frame(opClose, func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint16(b, d.code), d.reason...)
	})
}

// pingFrame is the server's ping: an empty reply.
var pingFrame = frame(opText, func(b []byte) []byte { return append(b, "{}"...) })

// encoder implements hub.Encoder.
type encoder struct{}

func (encoder) Publication(_ hub.Format, channel string, p *bus.Publication) []byte {
	return pushFrame(&protocol.Push{Channel: channel, Pub: wirePublication(p)})
}

func (encoder) Member(_ hub.Format, channel string, joined bool, info bus.ClientInfo) []byte {
	if joined {
		return pushFrame(&protocol.Push{Channel: channel, Join: &protocol.Join{Info: wireInfo(&info)}})
	}
	return pushFrame(&protocol.Push{Channel: channel, Leave: &protocol.Leave{Info: wireInfo(&info)}})
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
