// Package port finds TCP ports for servers that can't say which one they have got.
package port

import (
	"math/rand/v2"
	"net"
	"strconv"
)

// T is the part of testing.TB that this package needs.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Ports lie below those that systems give to connections by themselves (from 32768 on), so that none takes one between Free and the server's start, or
// while the server is started again. So do the ports 10,000 above, which a Redis cluster's bus takes.
const (
	first = 10_000
	last  = 22_767
	tries = 1000
)

// Free answers a port of loopback that nobody listens on, as digits. Which one is random: another process that looks for one at the same time
// finds another.
func Free(t T) string {
	t.Helper()
	for range tries {
		port := strconv.Itoa(first + rand.N(last-first+1))
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			continue
		}
		_ = l.Close()
		return port
	}
	t.Fatalf("port: %d ports from %d to %d are taken", tries, first, last)
	return ""
}
