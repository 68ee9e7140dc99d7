package server

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// Connections have the options of their listener.
func TestConnectionsInheritTheirOptions(t *testing.T) {
	public, private, err := listen(t.Context(), Config{Public: "127.0.0.1:0", Private: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	defer public.Close()
	far, err := net.Dial("tcp", public.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := public.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	raw, err := near.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for name, o := range map[string]struct{ level, name, want int }{
			"SO_KEEPALIVE":     {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			"TCP_NODELAY":      {syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
			"TCP_KEEPIDLE":     {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAliveIdle / time.Second)},
			"TCP_KEEPINTVL":    {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(keepAliveEvery / time.Second)},
			"TCP_KEEPCNT":      {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepAliveCount},
			"TCP_USER_TIMEOUT": {syscall.IPPROTO_TCP, tcpUserTimeout, int(unheardTimeout / time.Millisecond)},
		} {
			if got, err := syscall.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
				t.Errorf("%s is %d, %v, want %d", name, got, err, o.want)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}
