package conn

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"sync"
)

// headerRoom is the longest header of a server's frame (RFC 6455, section 5.2): 2 bytes and a 64-bit length.
const headerRoom = 10

const (
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xa
	final    = 0x80
	rsv1     = 0x40 // compressed (RFC 7692)

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

// deflated is frame with what build appends compressed, when it is long enough.
func deflated(first byte, build func([]byte) []byte) []byte {
	plain := build(nil)
	if len(plain) < deflateLeast {
		return frame(first, func(b []byte) []byte { return append(b, plain...) })
	}
	return frame(first|rsv1, func(b []byte) []byte { return deflate(b, plain) })
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

// closeFrame has no payload for 1005, which stands for a close frame that had none.
func closeFrame(d disconnect) []byte {
	if d.code == noStatus {
		return frame(opClose, func(b []byte) []byte { return b })
	}
	return frame(opClose, func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint16(b, d.code), d.reason...)
	})
}
