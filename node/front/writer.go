package front

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// writer collects an answer. It is what http.ResponseController finds: Hijack and the deadlines.
type writer struct {
	c        *conn
	s        *scratch
	header   http.Header
	status   int
	typed    bool // the head has a Content-Type, or must not be given one
	dated    bool
	close    bool // after this answer
	deadline time.Time
	hijacked bool
}

func (w *writer) Header() http.Header { return w.header }

// notOurs are the fields that writer decides on.
var notOurs = map[string]bool{"Content-Length": true, "Connection": true, "Transfer-Encoding": true}

// WriteHeader writes the head as far as it is known, so that what a handler sets later has no effect.
func (w *writer) WriteHeader(status int) {
	if w.status != 0 || w.hijacked || status < 200 { // informational ones may be left out
		return
	}
	w.status = status
	out := &w.s.out
	out.Reset()
	w.s.body.Reset()
	out.WriteString("HTTP/1.1 ")
	out.WriteString(strconv.Itoa(status))
	out.WriteByte(' ')
	text := http.StatusText(status)
	if text == "" {
		text = "status code " + strconv.Itoa(status)
	}
	out.WriteString(text)
	out.WriteString("\r\n")
	_ = w.header.WriteSubset(out, notOurs) // a bytes.Buffer doesn't fail
	_, w.typed = w.header["Content-Type"]
	if _, encoded := w.header["Content-Encoding"]; encoded {
		w.typed = true
	}
	_, w.dated = w.header["Date"]
	for _, v := range w.header["Connection"] {
		if strings.EqualFold(v, "close") {
			w.close = true
		}
	}
}

func (w *writer) Write(p []byte) (int, error) {
	if w.hijacked {
		return 0, http.ErrHijacked
	}
	w.WriteHeader(http.StatusOK)
	if !mayHaveBody(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	return w.s.body.Write(p)
}

func mayHaveBody(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// writeAtOnce is how long a body may be to be copied behind its head; longer ones go by writev(2).
const writeAtOnce = 4 << 10

// end sends the answer.
func (w *writer) end() error {
	w.WriteHeader(http.StatusOK)
	out, body := &w.s.out, w.s.body.Bytes()
	if mayHaveBody(w.status) {
		if !w.typed && len(body) > 0 {
			out.WriteString("Content-Type: ")
			out.WriteString(http.DetectContentType(body))
			out.WriteString("\r\n")
		}
		out.WriteString("Content-Length: ")
		out.Write(strconv.AppendInt(out.AvailableBuffer(), int64(len(body)), 10))
		out.WriteString("\r\n")
	}
	now := time.Now()
	if !w.dated {
		out.WriteString("Date: ")
		out.Write(now.UTC().AppendFormat(out.AvailableBuffer(), http.TimeFormat))
		out.WriteString("\r\n")
	}
	if w.close {
		out.WriteString("Connection: close\r\n")
	}
	out.WriteString("\r\n")
	if w.deadline.IsZero() {
		w.deadline = now.Add(AnswerTimeout)
	}
	if err := w.c.SetWriteDeadline(w.deadline); err != nil {
		return err
	}
	if len(body) <= writeAtOnce {
		out.Write(body)
		_, err := w.c.Write(out.Bytes())
		return err
	}
	both := net.Buffers{out.Bytes(), body}
	_, err := both.WriteTo(w.c.TCPConn)
	return err
}

// SetReadDeadline does nothing: the request has been read.
func (w *writer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is for the answer alone; the zero time, which http.ResponseController's users set when they are done, changes nothing.
func (w *writer) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() {
		w.deadline = t
	}
	return nil
}

// Hijack implements http.Hijacker, but that what is buffered may be used until the handler returns only. Deadlines of the connection are the taker's to clear.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.hijacked || w.status != 0 {
		return nil, nil, http.ErrHijacked
	}
	w.hijacked = true
	w.s.reader.Reset(w.c.TCPConn)
	w.s.writer.Reset(w.c.TCPConn)
	return w.c.TCPConn, bufio.NewReadWriter(w.s.reader, w.s.writer), nil
}
