package swarm

import (
	"encoding/binary"
	"errors"
)

const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

// errFrame is a frame that no server may send.
var errFrame = errors.New("malformed frame")

// frame is a client's final frame. Its mask is zero, which is a mask, and leaves the payload as it is.
func frame(op byte, payload []byte) []byte {
	b := []byte{0x80 | op}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// cut takes the first frame off b; size 0 says that it is not complete.
func cut(b []byte) (op byte, payload []byte, size int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	n, at := uint64(b[1]), 2
	switch {
	case n < 126:
	case n == 126 && len(b) >= 4:
		n, at = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case n == 127 && len(b) >= 10:
		n, at = binary.BigEndian.Uint64(b[2:]), 10
	case n > 127, b[0]&0xf0 != 0x80: // masked; in parts or compressed
		return 0, nil, 0, errFrame
	default:
		return 0, nil, 0, nil
	}
	if b[0]&0xf0 != 0x80 || n > 1<<24 {
		return 0, nil, 0, errFrame
	}
	if uint64(len(b)-at) < n {
		return 0, nil, 0, nil
	}
	return b[0] & 0xf, b[at : at+int(n)], at + int(n), nil
}
