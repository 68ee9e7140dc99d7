package conn

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"tideline/node/hub"
)

// HTTP streams: one response that doesn't end is what the node sends, and requests to PathEmulation are what the client does. The request
// for the stream carries the first commands, connect among them. A stream is the same client as a WebSocket, over the same queue: the TCP connection
// is taken over from the HTTP server, and each frame is a chunk of the response.

// Paths of the HTTP transports, as the SDKs expect them.
const (
	PathStream    = "/connection/http_stream"
	PathSSE       = "/connection/sse"
	PathEmulation = "/emulation"
)

const (
	typeProtobuf = "application/octet-stream"
	typeEvents   = "text/event-stream"
)

// serveStream opens an HTTP stream: POST, the first commands as its body.
func (s *Service) serveStream(w http.ResponseWriter, r *http.Request) {
	if !s.mayStream(w, r, http.MethodPost) {
		return
	}
	body, ok := s.body(w, r)
	if !ok {
		return
	}
	defer s.bodies.release(body)
	format := formatStreamJSON
	if r.Header.Get("Content-Type") == typeProtobuf {
		format = formatStreamProtobuf
	}
	s.stream(w, r, format, typeProtobuf, body.data)
}

// serveSSE opens a stream of server-sent events: GET, the first commands in the query, because an EventSource can do nothing else.
func (s *Service) serveSSE(w http.ResponseWriter, r *http.Request) {
	if !s.mayStream(w, r, http.MethodGet) {
		return
	}
	s.stream(w, r, formatSSE, typeEvents, []byte(r.URL.Query().Get(queryConnect)))
}

// mayStream answers preflight requests, and those that get no stream.
func (s *Service) mayStream(w http.ResponseWriter, r *http.Request, method string) bool {
	if !s.crossOrigin(w, r, method) {
		return false
	}
	if r.ProtoMajor != 1 || !r.ProtoAtLeast(1, 1) {
		// Over HTTP/1.0 there are no chunks; HTTP/2, like TLS, ends before the node.
		http.Error(w, "this needs HTTP/1.1, also from the proxy in front", http.StatusHTTPVersionNotSupported)
		return false
	}
	return s.hasRoom(w, r)
}

// stream takes the connection over and makes a client of it that has sent the first commands.
func (s *Service) stream(w http.ResponseWriter, r *http.Request, f hub.Format, contentType string, first []byte) {
	switch {
	case len(first) == 0:
		http.Error(w, "no connect command", http.StatusBadRequest)
		return
	case len(first) > s.o.MessageBytes:
		http.Error(w, fmt.Sprintf("the commands are longer than %d bytes", s.o.MessageBytes), http.StatusRequestEntityTooLarge)
		return
	case f != formatStreamProtobuf && !utf8.Valid(first):
		http.Error(w, "the commands are not UTF-8", http.StatusBadRequest)
		return
	}
	sock, more, err := s.takeOver(w, contentType)
	if err != nil {
		s.log.Info("stream refused", "remote", clientAddress(r, s.o.TrustedHops), "error", err)
		return
	}
	c := s.open(sock, r, f)
	if c == nil {
		return
	}
	s.begin(c)
	c.session.take(c, first)
	go c.readStream(more)
}

// takeOver takes the connection from the HTTP server and writes the head of the response. more: the client has sent something after its
// request. On an error the client has been answered, or can't be.
func (s *Service) takeOver(w http.ResponseWriter, contentType string) (sock *socket, more bool, err error) {
	sock = &socket{}
	h := w.Header()
	_, rw, err := hijacker{w, sock}.Hijack()
	if err != nil {
		http.Error(w, "this needs a TCP connection of its own", http.StatusHTTPVersionNotSupported)
		return nil, false, err
	}
	h.Set("Content-Type", contentType)
	h.Set("Transfer-Encoding", "chunked")
	h.Set("Cache-Control", "private, no-cache, no-store, must-revalidate, max-age=0, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var head strings.Builder
	head.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&head) // a Builder doesn't fail
	head.WriteString("\r\n")
	// Nothing else can write yet. The socket has room, unless the client has left earlier responses unread.
	err = errors.Join(sock.SetDeadline(time.Now().Add(closeWait)), writeAll(sock, head.String()), sock.SetDeadline(time.Time{}))
	if err != nil {
		sock.Close()
		return nil, false, err
	}
	return sock, rw.Reader.Buffered() > 0, nil
}

func writeAll(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

// readStream waits for the end of the connection, and then takes it down. Whatever comes after the request ends it too: commands have a
// door of their own.
func (c *client) readStream(more bool) {
	if !more {
		n, err := c.sock.TCPConn.Read(make([]byte, 1))
		more = n > 0
		c.s.log.Debug("stream ended", "client", c.id, "error", err)
	}
	if more {
		c.s.log.Info("bytes after the request for a stream", "client", c.id, "remote", c.remote)
		c.close(byeBadRequest)
	}
	c.settle() // what was answered with 204 is done
	c.teardown(more)
}

// crossOrigin checks Origin and the method, and answers what is no request for the thing itself: true means go on. What a page of another,
// allowed origin may do is what one of ours may.
func (s *Service) crossOrigin(w http.ResponseWriter, r *http.Request, method string) bool {
	origin := r.Header.Get("Origin")
	h := w.Header()
	h.Add("Vary", "Origin")
	if !s.allowedOrigin(r) || origin == "" && foreignSite(r) {
		s.log.Info("origin refused", "remote", clientAddress(r, s.o.TrustedHops), "origin", origin)
		http.Error(w, "this origin is not allowed", http.StatusForbidden)
		return false
	}
	if origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	switch r.Method {
	case method:
		return true
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", method)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		h.Set("Access-Control-Max-Age", "7200") // the longest that browsers keep
		w.WriteHeader(http.StatusNoContent)
	default:
		h.Set("Allow", method+", "+http.MethodOptions)
		http.Error(w, "only "+method, http.StatusMethodNotAllowed)
	}
	return false
}

// foreignSite finds requests that a browser sends without Origin for a page of somebody else's, as for an image: with cookies, so they could
// open streams in the user's name, if not read them.
func foreignSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "same-origin" && site != "none"
}

// body reads a request's body, which must come within the handshake timeout; false: it has answered why not. What is read counts until release.
func (s *Service) body(w http.ResponseWriter, r *http.Request) (held, bool) {
	most := int64(s.o.MessageBytes)
	size := most
	if r.ContentLength >= 0 {
		size = r.ContentLength
	}
	if size > most {
		return held{}, tooLong(w, most)
	}
	b := held{size: size}
	if !s.bodies.reserve(size) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests are being read", http.StatusServiceUnavailable)
		return held{}, false
	}
	control := http.NewResponseController(w)
	err := control.SetReadDeadline(time.Now().Add(s.o.HandshakeTimeout))
	if err == nil {
		b.data, err = io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	}
	var long *http.MaxBytesError
	switch {
	case err == nil:
		// Without it the deadline would end the stream, or the next request.
		if err = control.SetReadDeadline(time.Time{}); err == nil {
			return b, true
		}
	case errors.As(err, &long):
		s.bodies.release(b)
		return held{}, tooLong(w, most)
	}
	s.bodies.release(b)
	s.log.Debug("body not read", "remote", clientAddress(r, s.o.TrustedHops), "error", err)
	http.Error(w, "the body did not come", http.StatusRequestTimeout)
	return held{}, false
}

func tooLong(w http.ResponseWriter, most int64) bool {
	http.Error(w, fmt.Sprintf("the body is longer than %d bytes", most), http.StatusRequestEntityTooLarge)
	return false
}
