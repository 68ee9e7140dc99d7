//go:build !linux

package conn

import "syscall"

// readable reports whether reading would not block. It is called by the runtime's poller with the socket, which doesn't block.
func readable(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return err != syscall.EAGAIN
		}
	}
}
