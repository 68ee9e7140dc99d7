package redistest

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// commandTimeout bounds one Do. CLUSTER commands and MIGRATE of a slot's worth of keys are the slowest.
const commandTimeout = 30 * time.Second

// Error is what a server answered instead of a result.
type Error string

func (e Error) Error() string { return string(e) }

func (e Error) loading() bool { return strings.HasPrefix(string(e), "LOADING") }

// Do sends one command on a connection of its own and answers a string, an int64, nil or a []any of these; an error ends the test.
func (s *Server) Do(args ...string) any {
	s.t.Helper()
	v, err := s.Try(args...)
	if err != nil {
		s.t.Fatalf("redistest: %s: %v", strings.Join(args, " "), err)
	}
	return v
}

// Try is Do with the error answered. Errors inside arrays are elements. It is safe for concurrent use.
func (s *Server) Try(args ...string) (any, error) {
	d := &net.Dialer{Timeout: commandTimeout}
	var c net.Conn
	var err error
	if s.tls != nil {
		pool := x509.NewCertPool()
		pem, readErr := os.ReadFile(s.tls.Cert)
		if readErr != nil {
			return nil, readErr
		}
		pool.AppendCertsFromPEM(pem)
		c, err = tls.DialWithDialer(d, "tcp", s.Addr(), &tls.Config{RootCAs: pool})
	} else {
		c, err = d.Dial("tcp", s.Addr())
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(commandTimeout))
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return nil, err
	}
	v, err := readReply(bufio.NewReader(c))
	if err != nil {
		return nil, err
	}
	if e, ok := v.(Error); ok {
		return nil, e
	}
	return v, nil
}

// readReply reads one RESP2 value.
func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("empty line from the server")
	}
	rest := line[1:]
	switch line[0] {
	case '+':
		return rest, nil
	case '-':
		return Error(rest), nil
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	}
	n, err := strconv.Atoi(rest)
	switch {
	case err != nil:
		return nil, fmt.Errorf("not RESP2: %q", line)
	case n < 0:
		return nil, nil
	case line[0] == '$':
		buf := make([]byte, n+2)
		if _, err := io.ReadFull(r, buf); err != nil {
			return nil, err
		}
		return string(buf[:n]), nil
	case line[0] == '*':
		vs := make([]any, n)
		for i := range vs {
			if vs[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return vs, nil
	}
	return nil, fmt.Errorf("not RESP2: %q", line)
}

// Info reads one field of INFO, "" when it is absent.
func (s *Server) Info(section, field string) string {
	s.t.Helper()
	text, _ := s.Do("INFO", section).(string)
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok && k == field {
			return v
		}
	}
	return ""
}
