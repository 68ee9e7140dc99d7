//go:build !linux

package hands

import "syscall"

// Readable reports whether reading would not block. It is called by the runtime's poller with the socket, which doesn't block.
func Readable(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return err != syscall.EAGAIN
		}
	}
}
