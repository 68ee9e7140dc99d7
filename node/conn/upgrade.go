package conn

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"tideline/node/hub"
)

// Path of the WebSocket endpoint, as the SDKs expect it.
const Path = "/connection/websocket"

// readBuffer is the size of the buffer that an idle connection keeps, in bytes.
const readBuffer = 512

// Register puts the endpoint on the public mux.
func (s *Service) Register(mux *http.ServeMux) { mux.HandleFunc("GET "+Path, s.serveWebSocket) }

// writeBuffers is shared by all connections: gorilla only writes control frames here.
var writeBuffers sync.Pool

func (s *Service) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if status, why := s.full(block(clientAddress(r, s.o.TrustedHops))); status != 0 {
		// SDKs try again, and by then the load balancer knows, or the storm is over.
		w.Header().Set("Retry-After", "1")
		http.Error(w, why, status)
		return
	}
	if r.URL.Query().Get("cf_protocol") == "protobuf" {
		http.Error(w, "the Protobuf format is not available on this node: connect without cf_protocol", http.StatusBadRequest)
		return
	}
	sock := &socket{}
	up := websocket.Upgrader{
		ReadBufferSize:  readBuffer,
		WriteBufferPool: &writeBuffers,
		Subprotocols:    []string{"centrifuge-json"},
		CheckOrigin:     s.allowedOrigin,
		// gorilla then agrees to permessage-deflate without context takeover, and inflates what the client sends.
		EnableCompression: s.o.Compression,
	}
	ws, err := up.Upgrade(hijacker{w, sock}, r, w.Header())
	if err != nil {
		s.log.Info("upgrade refused", "remote", clientAddress(r, s.o.TrustedHops), "origin", r.Header.Get("Origin"), "error", err)
		return // Upgrade has answered
	}
	ws.SetReadLimit(int64(s.o.MessageBytes))
	c, err := s.newClient(ws, sock, r)
	if err != nil {
		s.log.Error("connection not set up", "error", err)
		sock.Close()
		return
	}
	if !s.add(c) {
		c.out.Finish(closeFrame(byeShutdown))
		c.out.Close(closeWait)
		sock.Close()
		return
	}
	s.meter.total.Inc()
	// The HTTP server's goroutine and buffers end with this function; the reader has a stack of its own, and a small one.
	go c.read()
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

// allowedOrigin compares the Origin header with the allowed ones, or with the request's own host when there are none. Without the header the
// client is no browser, and nothing that a browser holds can be abused.
func (s *Service) allowedOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if len(s.o.AllowedOrigins) > 0 {
		return slices.ContainsFunc(s.o.AllowedOrigins, func(a string) bool { return strings.EqualFold(a, origin) })
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// clientAddress is the address that the outermost trusted proxy saw: counted from the right of X-Forwarded-For, because what stands
// further left is the client's own claim. With no trusted hops it is the peer's.
func clientAddress(r *http.Request, hops int) string {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		peer = r.RemoteAddr
	}
	if hops == 0 {
		return peer
	}
	var chain []string
	for _, v := range r.Header.Values("X-Forwarded-For") {
		for part := range strings.SplitSeq(v, ",") {
			chain = append(chain, strings.TrimSpace(part))
		}
	}
	if len(chain) < hops {
		return peer // fewer proxies than configured: somebody came around them
	}
	a := chain[len(chain)-hops]
	if host, _, err := net.SplitHostPort(a); err == nil {
		a = host
	}
	if net.ParseIP(strings.Trim(a, "[]")) == nil {
		return peer
	}
	return a
}

// block is what counts as one address: an IPv4 address, or the /64 of an IPv6 address, because whoever has one address of it has all.
func block(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Unmap().Is4() {
		return address
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
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
	h.sock.TCPConn = tcp
	return h.sock, rw, nil
}

// socket is the TCP connection as gorilla sees it. Once the outbox stands, Write goes through it: gorilla's control frames neither block nor fail on a
// full socket, and don't land in the middle of a frame. Write deadlines are the outbox's.
type socket struct {
	*net.TCPConn
	out *hub.Conn
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
