package conn

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"tideline/node/hands"
	"tideline/node/hub"
)

// Paths of the WebSocket endpoints, as the SDKs expect them.
const (
	Path             = "/connection/websocket"
	PathUniWebSocket = "/connection/uni_websocket"
)

const (
	// readBuffer is the size of the buffer that an idle connection keeps, in bytes: a pong and most commands fit, longer messages go past it. gorilla
	// uses the buffer that the hijacker gives it if it has more than 256 bytes.
	readBuffer = 288
	// lingerBytes is the most that is read, to be thrown away, from a client that goes on sending after the node has said goodbye: closing a
	// socket with unread bytes resets it, and the reset would overtake the close frame.
	lingerBytes = 1 << 20
)

// writeBuffers is shared by all connections: gorilla only writes control frames here.
var writeBuffers sync.Pool

func (s *Service) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if !s.hasRoom(w, r) {
		return
	}
	subprotocol, protobuf, err := agreed(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	format := formatJSON
	switch {
	case protobuf:
		format = formatProtobuf
	case s.o.Compression && offersDeflate(r):
		format = formatJSONDeflate
	}
	// Protobuf is not compressed: what is long in it are the application's bytes, which may be anything.
	if ws, sock := s.upgrade(w, r, subprotocol, s.o.Compression && !protobuf); ws != nil {
		if c := s.open(sock, r, format); c != nil {
			// The HTTP server's goroutine and buffers end with this function.
			c.readWebSocket(ws)
		}
	}
}

// serveUniWebSocket takes the request to connect from the URL or as the first message.
func (s *Service) serveUniWebSocket(w http.ResponseWriter, r *http.Request) {
	if !s.hasRoom(w, r) {
		return
	}
	req, err := connectInURL(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if ws, sock := s.upgrade(w, r, "", false); ws != nil {
		if c := s.open(sock, r, formatUniJSON); c != nil {
			if req != nil {
				c.listen(req)
			}
			c.readWebSocket(ws)
		}
	}
}

const (
	subprotocolJSON     = "centrifuge-json"
	subprotocolProtobuf = "centrifuge-protobuf"
)

// agreed reports which format the client wants: by the first subprotocol of its list that is known, which is echoed, or by cf_protocol in the
// URL. Where they contradict each other the client can't mean both.
func agreed(r *http.Request) (subprotocol string, protobuf bool, err error) {
	query := r.URL.Query().Get("cf_protocol")
	if query != "" && query != "json" && query != "protobuf" {
		return "", false, errors.New("cf_protocol is neither json nor protobuf")
	}
	known := func(name string) bool { return name == subprotocolJSON || name == subprotocolProtobuf }
	offered := websocket.Subprotocols(r)
	i := slices.IndexFunc(offered, known)
	if i < 0 {
		return "", query == "protobuf", nil
	}
	subprotocol = offered[i]
	protobuf = subprotocol == subprotocolProtobuf
	if query != "" && protobuf != (query == "protobuf") {
		return "", false, errors.New("cf_protocol and the subprotocol contradict each other")
	}
	return subprotocol, protobuf, nil
}

// upgrade makes a WebSocket connection of a request. nil: it has answered why not.
func (s *Service) upgrade(w http.ResponseWriter, r *http.Request, subprotocol string, compression bool) (*websocket.Conn, *socket) {
	sock := &socket{}
	up := websocket.Upgrader{
		// No ReadBufferSize: the hijacker's is used.
		WriteBufferPool: &writeBuffers,
		Subprotocols:    []string{subprotocol},
		CheckOrigin:     s.allowedOrigin,
		// gorilla then agrees to permessage-deflate without context takeover, and inflates what the client sends.
		EnableCompression: compression,
	}
	ws, err := up.Upgrade(hijacker{w, sock}, r, w.Header())
	if err != nil {
		s.log.Info("upgrade refused", "remote", clientAddress(r, s.o.TrustedHops), "origin", r.Header.Get("Origin"), "error", err)
		return nil, nil
	}
	ws.SetReadLimit(int64(s.o.MessageBytes))
	return ws, sock
}

// offersDeflate finds what gorilla agrees to when compression is enabled.
func offersDeflate(r *http.Request) bool {
	for _, v := range r.Header.Values("Sec-Websocket-Extensions") {
		for offer := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(offer, ";")
			if strings.TrimSpace(name) == "permessage-deflate" {
				return true
			}
		}
	}
	return false
}

// readWebSocket begins to read messages; whoever reads the last one takes the connection down.
func (c *client) readWebSocket(ws *websocket.Conn) {
	ws.SetPingHandler(func(text string) error {
		if c.affords(1) {
			c.out.Send(frame(opPong, func(b []byte) []byte { return append(b, text...) }))
		}
		return nil
	})
	ws.SetPongHandler(func(string) error {
		if !c.uni() || c.pinged.Load() == 0 || !c.pong() {
			c.affords(1) // nobody asked
		}
		return nil
	})
	c.sock.ws = ws
	go c.rest()
}

// rest is all that runs for an idle connection: it waits until there is something to read, or until reading has failed or timed out, and leaves
// the rest to a hand. It must stay shallow: a goroutine's stack never shrinks below 4 KiB once it has been that large.
func (c *client) rest() {
	_ = c.sock.raw.Read(hands.Readable) // reading gives the same error
	c.s.hands.Do(task{c, true})
}

// readOn reads what has come, and leaves the connection to rest or takes it down.
func (c *client) readOn() {
	for {
		if err := c.readMessage(c.sock.ws); err != nil {
			c.teardown(c.ended(err))
			return
		}
		if c.sock.in.Buffered() == 0 {
			go c.rest()
			return
		}
	}
}

// readMessage reads one message; its error ends the connection.
func (c *client) readMessage(ws *websocket.Conn) error {
	kind, r, err := ws.NextReader()
	if err != nil {
		return err
	}
	most := c.s.o.MessageBytes
	data, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	switch {
	case err != nil:
		return err
	case len(data) > most: // it was within the limit while it was compressed
		c.close(byeTooLarge)
	case kind != formats[c.format].message:
		c.close(byeBadRequest)
	case kind == websocket.TextMessage && !utf8.Valid(data): // RFC 6455, section 8.1
		c.close(byeNotUTF8)
	default:
		c.accept(data)
	}
	return nil
}

// ended lets the commands that came before the end finish, notes how it came, and answers a close frame with one. It reports whether
// the end is a fault of the client's, which may not have read why yet.
func (c *client) ended(err error) (refused bool) {
	c.settle()
	var closed *websocket.CloseError
	var network net.Error
	switch {
	case errors.As(err, &closed):
		c.s.log.Debug("closed by the client", "client", c.id, "code", closed.Code)
		c.out.Finish(closeFrame(disconnect{code: uint16(closed.Code)}))
		return false
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		c.s.log.Debug("connection lost", "client", c.id, "error", err)
		return false
	}
	bye := byeProtocolError
	if errors.Is(err, websocket.ErrReadLimit) {
		bye = byeTooLarge
	}
	c.s.log.Info("frame refused", "client", c.id, "remote", c.remote, "error", err)
	c.close(bye)
	return true
}

// linger lets a refused client read why before the socket closes.
func (c *client) linger() {
	if c.sock.CloseWrite() != nil {
		return // reset already
	}
	c.sock.SetReadDeadline(time.Now().Add(closeWait))
	_, _ = io.CopyN(io.Discard, c.sock.TCPConn, lingerBytes) // its end, whichever, is the connection's
}

// hijacker hands gorilla our socket in place of the TCP connection.
type hijacker struct {
	http.ResponseWriter
	sock *socket
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		nc.Close()
		return nil, nil, errors.New("not a TCP connection: TLS ends before the node")
	}
	if h.sock.raw, err = tcp.SyscallConn(); err != nil {
		nc.Close()
		return nil, nil, err
	}
	h.sock.TCPConn = tcp
	if rw.Reader.Buffered() > 0 {
		return h.sock, rw, nil // sent before the handshake was complete: gorilla refuses that
	}
	h.sock.in = bufio.NewReaderSize(h.sock, readBuffer)
	return h.sock, bufio.NewReadWriter(h.sock.in, rw.Writer), nil
}

// socket is the TCP connection as gorilla sees it. Once the outbox stands, Write goes through it: gorilla's control frames neither block nor fail on a
// full socket, and don't land in the middle of a frame. Write deadlines are the outbox's.
type socket struct {
	*net.TCPConn
	out *hub.Conn
	raw syscall.RawConn
	ws  *websocket.Conn // these two: nil for HTTP streams
	in  *bufio.Reader   // gorilla's
}

func (s *socket) Write(p []byte) (int, error) {
	if s.out == nil {
		return s.TCPConn.Write(p)
	}
	if len(p) > 0 && p[0]&0xf == opClose {
		return len(p), nil // ours comes when what the client has sent before is answered
	}
	s.out.Send(slices.Clone(p)) // p is gorilla's buffer
	return len(p), nil
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.out == nil {
		return s.TCPConn.SetWriteDeadline(t)
	}
	return nil
}
