package swarm

import (
	"bytes"
	"fmt"
	"io"
	"syscall"
	"time"
)

// readable reads once, and takes every whole frame out of what came.
func (s *Swarm) readable(c *conn) {
	kept := copy(s.buf, c.rest)
	n, err := syscall.Read(int(c.fd), s.buf[kept:])
	switch {
	case err == syscall.EAGAIN, err == syscall.EINTR:
		return
	case err != nil:
		s.ended(c, err)
		return
	case n == 0:
		s.ended(c, io.EOF)
		return
	}
	rest, err := s.take(c, s.buf[:kept+n], time.Since(s.o.Start))
	if err != nil {
		s.ended(c, err)
		return
	}
	if len(rest) >= readBuffer {
		s.ended(c, errFrame)
		return
	}
	c.rest = append(c.rest[:0], rest...)
	if len(rest) == 0 && cap(c.rest) > 4096 {
		c.rest = nil
	}
}

// take works frames off and answers what is left.
func (s *Swarm) take(c *conn, b []byte, now time.Duration) ([]byte, error) {
	if c.state == upgrading {
		header, frames, ok := bytes.Cut(b, []byte("\r\n\r\n"))
		if !ok {
			return b, nil
		}
		if !bytes.HasPrefix(header, []byte("HTTP/1.1 101 ")) {
			return nil, fmt.Errorf("upgrade refused: %s", b)
		}
		c.state, b = joining, frames
		if text := s.o.Dialect.Opening(c.token, c.name, c.at); text != "" {
			if err := s.send(c, frame(opText, []byte(text))); err != nil {
				return nil, err
			}
		}
	}
	for {
		op, payload, size, err := cut(b)
		if err != nil || size == 0 {
			return b, err
		}
		b = b[size:]
		switch op {
		case opText:
			err = s.text(c, payload, now)
		case opPing:
			err = s.send(c, frame(opPong, payload))
		case opPong:
		case opClose:
			err = fmt.Errorf("closed by the server: %q", payload)
		default:
			err = errFrame
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *Swarm) text(c *conn, text []byte, now time.Duration) error {
	if c.state == live {
		if place, rest, ok := next(text); ok {
			for ; ok; place, rest, ok = next(rest) {
				s.hear(c, place, now)
			}
			return nil
		}
	}
	answer, subscribed, err := s.o.Dialect.Heard(text, c.name)
	if err != nil {
		return err
	}
	if answer != "" {
		if err := s.send(c, frame(opText, []byte(answer))); err != nil {
			return err
		}
	}
	if !subscribed || c.state == live {
		return nil
	}
	c.state = live
	s.opening--
	s.live++
	if at, ok := s.o.Dialect.Joined(text); ok {
		c.at = &at
	}
	for place, rest, ok := next(text); ok; place, rest, ok = next(rest) { // recovered in the reply
		s.hear(c, place, now)
	}
	c.heard = 0 // the position is that of the reply
	return nil
}

// hear checks one publication.
func (s *Swarm) hear(c *conn, p Place, now time.Duration) {
	if p.Channel != c.channel {
		s.verdict.Strange++
		return
	}
	if c.track.Heard(p.Seq, &s.verdict) {
		c.heard++
		s.latency[c.class].Add(now - p.Due)
	}
}
