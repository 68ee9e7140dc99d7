package balancer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"tideline/shared/limit"
)

// CookieName is the name of the real one's stickiness cookie.
const CookieName = "AWSALB"

// isAPI tells what the listener rule /api/* matches: not /api itself.
func isAPI(path string) bool { return strings.HasPrefix(path, "/api/") }

// isSocket tells what belongs to the nodes even when a development server serves the page.
func isSocket(path string) bool {
	return strings.HasPrefix(path, "/connection/") || path == "/emulation"
}

func (b *Balancer) cookie(t *target) *http.Cookie {
	return &http.Cookie{Name: CookieName, Value: t.cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Expires: time.Now().Add(limit.StickyTTL), MaxAge: int(limit.StickyTTL / time.Second)}
}

// rewrite makes the request that the target sees. Host stays; the client's address goes to the right end of X-Forwarded-For, whatever
// the client claimed before it; the scheme and the port are the listener's and not the client's claim.
func rewrite(p *httputil.ProxyRequest, to *url.URL) {
	p.SetURL(to)
	p.Out.Host = p.In.Host
	// ReverseProxy has taken these away; SetXForwarded appends to what is there.
	p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
	p.SetXForwarded()
	p.Out.Header.Del("X-Forwarded-Host") // the real one sends none
	if addr, ok := p.In.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		p.Out.Header.Set("X-Forwarded-Port", fmt.Sprint(addr.Port))
	}
	if p.In.Header.Get("X-Amzn-Trace-Id") == "" {
		p.Out.Header.Set("X-Amzn-Trace-Id", traceID(time.Now()))
	}
}

func traceID(now time.Time) string {
	var id [12]byte
	rand.Read(id[:]) // never fails
	return fmt.Sprintf("Root=1-%08x-%s", uint32(now.Unix()), hex.EncodeToString(id[:]))
}

// answer is the real one's own page for a status.
func answer(w http.ResponseWriter, status int) {
	title := fmt.Sprintf("%d %s", status, map[int]string{
		http.StatusBadGateway:         "Bad Gateway",
		http.StatusServiceUnavailable: "Service Temporarily Unavailable",
		http.StatusGatewayTimeout:     "Gateway Time-out",
	}[status])
	w.Header().Set("Server", "awselb/2.0")
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html>\r\n<head><title>%[1]s</title></head>\r\n<body>\r\n<center><h1>%[1]s</h1></center>\r\n</body>\r\n</html>\r\n", title)
}

func newTransport(idle time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &idleConn{Conn: conn, idle: idle}, nil
		},
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     idle,
		// A client that asks before it sends a large body gets the target's answer, not ours, also from a target that is slow for a moment: the body would meet
		// the end of its connection.
		ExpectContinueTimeout: 10 * time.Second,
		// The real one neither compresses nor unpacks.
		DisableCompression: true,
	}
}

// errIdle is a timeout, so that it becomes a 504 while a response is awaited.
var errIdle error = &idleError{}

type idleError struct{}

func (*idleError) Error() string   { return "nothing passed within the idle timeout" }
func (*idleError) Timeout() bool   { return true }
func (*idleError) Temporary() bool { return false }

// idleConn ends when nothing has passed in either direction for idle. Any byte counts, as at the real one.
type idleConn struct {
	net.Conn
	idle time.Duration
}

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	return n, c.named(err)
}

func (c *idleConn) Write(p []byte) (int, error) {
	// A Read that waits meanwhile gets the new deadline too.
	if err := c.Conn.SetDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	return n, c.named(err)
}

func (c *idleConn) named(err error) error {
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return errIdle
	}
	return err
}
