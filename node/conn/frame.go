package conn

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"sync"

	"github.com/centrifugal/protocol"

	"tideline/node/hub"
	"tideline/shared/bus"
)

// Formats of frames: JSON in WebSocket text frames, plain or compressed.
const (
	formatJSON hub.Format = iota
	formatJSONDeflate
)

// headerRoom is the longest header of a server's frame (RFC 6455, section 5.2): 2 bytes and a 64-bit length.
const headerRoom = 10

const (
	opText  = 0x1
	opClose = 0x8
	opPong  = 0xa
	final   = 0x80
	rsv1    = 0x40 // compressed (RFC 7692)

	noStatus = 1005
)

// deflateLeast is the shortest payload that is compressed, in bytes: below it the result is hardly smaller.
const deflateLeast = 256

// frame makes one final WebSocket frame, unmasked, of what build appends.
func frame(first byte, build func([]byte) []byte) []byte {
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
	b[at] = final | first
	return b[at:]
}

// replyFrame encodes a reply, or a push in one, in a format.
func replyFrame(f hub.Format, r *protocol.Reply) []byte { return textFrame(f, r.AppendJSON) }

func textFrame(f hub.Format, build func([]byte) []byte) []byte {
	if f != formatJSONDeflate {
		return frame(opText, build)
	}
	plain := build(nil)
	if len(plain) < deflateLeast {
		return frame(opText, func(b []byte) []byte { return append(b, plain...) })
	}
	return frame(opText|rsv1, func(b []byte) []byte { return deflate(b, plain) })
}

// deflaters have no context to take over: a frame is compressed once and shared by all who get it.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// deflate appends the compressed data, without the empty block that ends a message (RFC 7692, section 7.2.1).
func deflate(b, data []byte) []byte {
	out := bytes.NewBuffer(b)
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(out)
	// A Buffer doesn't fail.
	_, _ = w.Write(data)
	_ = w.Flush()
	return bytes.TrimSuffix(out.Bytes(), []byte{0, 0, 0xff, 0xff})
}

func pushFrame(f hub.Format, p *protocol.Push) []byte {
	return replyFrame(f, &protocol.Reply{Push: p})
}

// closeFrame has no payload for 1005, which stands for a close frame that had none.
func closeFrame(d disconnect) []byte {
	if d.code == noStatus {
		return frame(opClose, func(b []byte) []byte { return b })
	}
	return frame(opClose, func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint16(b, d.code), d.reason...)
	})
}

// pingFrame is the server's ping: an empty reply.
var pingFrame = frame(opText, func(b []byte) []byte { return append(b, "{}"...) })

// encoder implements hub.Encoder.
type encoder struct{}

func (encoder) Publication(f hub.Format, channel string, p *bus.Publication) []byte {
	return pushFrame(f, &protocol.Push{Channel: channel, Pub: wirePublication(p)})
}

func (encoder) Member(f hub.Format, channel string, joined bool, info bus.ClientInfo) []byte {
	push := &protocol.Push{Channel: channel}
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
