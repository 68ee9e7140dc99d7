//go:build !linux

package hands

import "syscall"

// Readable reports whether reading would not block. It is called by the runtime's poller with the socket, which doesn't block.
func Readable(fd uintptr) bool {
	var b [1]byte
	_, ready := Peek(fd, b[:])
	return ready
}

// Peek reads what has come to a socket and leaves it there; not ready: nothing has. At the end of the connection, and after an error, it is ready with none.
func Peek(fd uintptr, into []byte) (n int, ready bool) {
	for {
		n, _, err := syscall.Recvfrom(int(fd), into, syscall.MSG_PEEK)
		switch err {
		case nil:
			return n, true
		case syscall.EINTR:
		default:
			return 0, err != syscall.EAGAIN
		}
	}
}
