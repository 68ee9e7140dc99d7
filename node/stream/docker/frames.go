package docker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// frameBytes is the largest frame that is believed; the engine cuts messages at 16 KiB.
	frameBytes = 1 << 20
	// ttyLineBytes is how much of a terminal's line is looked at.
	ttyLineBytes = 64 << 10
)

var errFrame = errors.New("log stream not understood")

// message is one that the engine logged: a line, or 16 KiB of a longer one.
type message struct {
	stream string
	time   time.Time
	text   []byte
	whole  bool // it ends with the line's end
}

// scanner reads messages off a log. Of a container without a terminal they come in frames: stream, three zeros, size, "<time> <text>". A
// terminal's come as lines, without the frame.
type scanner struct {
	r     *bufio.Reader
	tty   bool
	frame []byte
}

func newScanner(r io.Reader, tty bool) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, ttyLineBytes), tty: tty}
}

// next answers the next message, whose text is valid until the one after it; io.EOF at the end.
func (s *scanner) next() (message, error) {
	if s.tty {
		return s.nextLine()
	}
	var head [8]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return message{}, err // io.EOF between frames
	}
	m := message{stream: "stdout"}
	switch head[0] {
	case 0, 1:
	case 2:
		m.stream = "stderr"
	default:
		return message{}, fmt.Errorf("%w: stream %d", errFrame, head[0])
	}
	size := binary.BigEndian.Uint32(head[4:])
	if size > frameBytes {
		return message{}, fmt.Errorf("%w: frame of %d bytes", errFrame, size)
	}
	if cap(s.frame) < int(size) {
		s.frame = make([]byte, size)
	}
	s.frame = s.frame[:size]
	if _, err := io.ReadFull(s.r, s.frame); err != nil {
		return message{}, err
	}
	return m.parse(s.frame)
}

func (s *scanner) nextLine() (message, error) {
	text, err := s.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		text = append(s.frame[:0], text...)
		s.frame = text
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = s.r.ReadSlice('\n')
		}
		text = append(text, '\n') // the rest was thrown away: it is shown as cut anyway
	}
	if len(text) == 0 || err != nil && !errors.Is(err, io.EOF) {
		return message{}, err
	}
	return message{stream: "stdout"}.parse(text)
}

func (m message) parse(b []byte) (message, error) {
	stamp, text, ok := bytes.Cut(b, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp[:min(len(stamp), 40)]))
	if !ok || err != nil {
		return message{}, fmt.Errorf("%w: no time in front of a message", errFrame)
	}
	m.time = at
	m.text, m.whole = bytes.CutSuffix(text, []byte("\n"))
	m.text = bytes.TrimSuffix(m.text, []byte("\r"))
	return m, nil
}
