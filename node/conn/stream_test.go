package conn

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/gorilla/websocket"

	"tideline/node/hub"
)

// messages is what the tests' clients need of a connection: a WebSocket's, or a stream's.
type messages interface {
	WriteMessage(kind int, data []byte) error
	ReadMessage() (kind int, data []byte, err error)
	SetReadDeadline(time.Time) error
	Close() error
}

// stream is an HTTP stream as a client has it: the response, and where its commands go. The first commands open it.
type stream struct {
	t      *testing.T
	n      *node // that it opens on
	format hub.Format
	tcp    net.Conn
	head   *http.Response
	body   *bufio.Reader // without the chunks

	emulation     string // URL
	session, node string
	said          *protocol.Disconnect
}

// WriteMessage implements messages.
func (s *stream) WriteMessage(_ int, data []byte) error {
	s.t.Helper()
	if s.tcp == nil {
		s.open(s.n.request(s.t, s.format, data))
		if s.head.StatusCode != http.StatusOK {
			return fmt.Errorf("stream: %s", s.head.Status)
		}
		return nil
	}
	if status := s.post(data); status != http.StatusNoContent {
		return fmt.Errorf("emulation: %d", status)
	}
	return nil
}

// ReadMessage implements messages: the end of the response is what the disconnect push before it has said.
func (s *stream) ReadMessage() (int, []byte, error) {
	line, err := s.next()
	switch {
	case err == io.EOF && s.said != nil:
		return 0, nil, &websocket.CloseError{Code: int(s.said.Code), Text: s.said.Reason}
	case err != nil:
		return 0, nil, err
	case s.said != nil:
		return 0, nil, fmt.Errorf("after the disconnect push: %s", line)
	}
	var r protocol.Reply
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return 0, nil, err
	}
	if r.Connect != nil {
		s.session, s.node = r.Connect.Session, r.Connect.Node
	}
	if r.Push != nil && r.Push.Disconnect != nil {
		s.said = r.Push.Disconnect
		return s.ReadMessage()
	}
	if s.format == formatStreamProtobuf {
		return websocket.BinaryMessage, appendProtobuf(nil, &r, true), nil
	}
	return websocket.TextMessage, []byte(line), nil
}

// SetReadDeadline implements messages.
func (s *stream) SetReadDeadline(at time.Time) error { return s.tcp.SetReadDeadline(at) }

// Close implements messages.
func (s *stream) Close() error { return s.tcp.Close() }

// base is the URL of the node, without a path.
func (n *node) base() string {
	return "http" + strings.TrimSuffix(strings.TrimPrefix(n.url, "ws"), Path)
}

// request makes the request that opens a stream with the first commands.
func (n *node) request(t testing.TB, f hub.Format, first []byte) *http.Request {
	t.Helper()
	var r *http.Request
	var err error
	switch f {
	case formatSSE:
		r, err = http.NewRequestWithContext(t.Context(), http.MethodGet, n.base()+PathSSE+"?"+queryConnect+"="+url.QueryEscape(string(first)), nil)
	default:
		r, err = http.NewRequestWithContext(t.Context(), http.MethodPost, n.base()+PathStream, bytes.NewReader(first))
	}
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if f == formatStreamProtobuf {
		r.Header.Set("Content-Type", typeProtobuf)
	}
	return r
}

// open sends a request over a connection of its own and reads the head of the response.
func (s *stream) open(r *http.Request) {
	s.t.Helper()
	tcp, err := net.Dial("tcp", r.URL.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { tcp.Close() })
	if err := tcp.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		s.t.Fatal(err)
	}
	if err := r.Write(tcp); err != nil {
		s.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(tcp), r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.tcp, s.head, s.body, s.emulation = tcp, res, bufio.NewReader(res.Body), "http://"+r.URL.Host+PathEmulation
}

// next reads one message as JSON; io.EOF at the end of the response.
func (s *stream) next() (string, error) {
	switch s.format {
	case formatStreamProtobuf:
		size, err := readUvarint(s.body)
		if err != nil {
			return "", err
		}
		one := make([]byte, size)
		if _, err := io.ReadFull(s.body, one); err != nil {
			return "", err
		}
		if size == 0 {
			return "{}", nil
		}
		var r protocol.Reply
		if err := r.UnmarshalCF(one); err != nil {
			return "", err
		}
		return string(r.AppendJSON(nil)), nil
	case formatStreamJSON:
		line, err := s.body.ReadString('\n')
		return strings.TrimSuffix(line, "\n"), err
	}
	event, err := s.event()
	return event.data, err
}

// sent is a server-sent event.
type sent struct {
	id, data, retry string
	hasID           bool
}

func (s *stream) event() (sent, error) {
	var e sent
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			return e, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "":
			return e, nil
		case "id":
			e.id, e.hasID = value, true
		case "retry":
			e.retry = value
		case "data":
			e.data = value
		default:
			return e, fmt.Errorf("line %q", line)
		}
	}
}

func readUvarint(r io.ByteReader) (n uint64, err error) {
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n, nil
		}
	}
}

// post sends commands to the session, and answers the status.
func (s *stream) post(data []byte) int {
	s.t.Helper()
	kind := "application/json"
	var body []byte
	if s.format == formatStreamProtobuf {
		kind = typeProtobuf
		b, err := (&protocol.EmulationRequest{Session: s.session, Node: s.node, Data: data}).MarshalCF()
		if err != nil {
			s.t.Fatal(err)
		}
		body = b
	} else {
		b, err := json.Marshal(map[string]string{"session": s.session, "node": s.node, "data": string(data)})
		if err != nil {
			s.t.Fatal(err)
		}
		body = b
	}
	res, err := http.Post(s.emulation, kind, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}
