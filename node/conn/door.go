package conn

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"tideline/node/hub"
)

// Register puts the endpoints on the public mux.
func (s *Service) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+Path, s.serveWebSocket)
	mux.HandleFunc("GET "+PathUniWebSocket, s.serveUniWebSocket)
	// These answer other methods themselves: a preflight among them.
	mux.HandleFunc(PathStream, s.serveStream)
	mux.HandleFunc(PathSSE, s.serveSSE)
	mux.HandleFunc(PathEmulation, s.serveEmulation)
	mux.HandleFunc(PathUniSSE, s.serveUniSSE)
}

// hasRoom answers a newcomer for whom there is none.
func (s *Service) hasRoom(w http.ResponseWriter, r *http.Request) bool {
	status, why := s.full(block(clientAddress(r, s.o.TrustedHops)), s.isCanary(bearer(r)))
	if status == 0 {
		return true
	}
	// SDKs try again, and by then the load balancer knows, or the storm is over.
	w.Header().Set("Retry-After", "1")
	http.Error(w, why, status)
	return false
}

// open makes a client of a socket that has been taken over from the HTTP server. nil: it is closed already, and why is said. The
// caller starts its reader.
func (s *Service) open(sock *socket, r *http.Request, f hub.Format) *client {
	c, err := s.newClient(sock, r, f)
	if err != nil {
		s.log.Error("connection not set up", "error", err)
		sock.Close()
		return nil
	}
	if !s.add(c) {
		c.out.Finish(formats[f].bye(byeShutdown))
		c.out.Close(closeWait)
		sock.Close()
		return nil
	}
	if !c.canary() {
		s.meter.total.Inc()
	}
	return c
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
