package server

import (
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// Keep-alive probes as Go sends them by default.
	keepAliveIdle  = 15 * time.Second
	keepAliveEvery = 15 * time.Second
	keepAliveCount = 9
	// unheardTimeout is how long what was sent may stay unacknowledged before the kernel ends a connection. Readers of uni_sse answer no pings:
	// without it one that has vanished is noticed after a quarter of an hour.
	unheardTimeout = 60 * time.Second
	tcpUserTimeout = 18 // TCP_USER_TIMEOUT (RFC 5482, tcp(7)), which package syscall doesn't have
)

// listenConfig sets the options of all connections on their listener, from which they inherit them: four system calls less for each.
var listenConfig = net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
	var err error
	gone := raw.Control(func(fd uintptr) {
		for _, o := range []struct{ level, name, value int }{
			{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAliveIdle / time.Second)},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(keepAliveEvery / time.Second)},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepAliveCount},
			{syscall.IPPROTO_TCP, tcpUserTimeout, int(unheardTimeout / time.Millisecond)},
		} {
			err = errors.Join(err, syscall.SetsockoptInt(int(fd), o.level, o.name, o.value))
		}
	})
	return errors.Join(gone, err)
}}
