package hands

import (
	"syscall"
	"unsafe"
)

// Readable reports whether reading would not block. It is called by the runtime's poller with the socket.
func Readable(fd uintptr) bool {
	var b byte
	_, ready := recv(fd, &b, 1)
	return ready
}

// Peek reads what has come to a socket and leaves it there; not ready: nothing has. At the end of the connection, and after an error, it is ready with none.
func Peek(fd uintptr, into []byte) (n int, ready bool) { return recv(fd, &into[0], len(into)) }

// recv is the system call itself, because the package's function for it takes more stack than a resting connection should have.
func recv(fd uintptr, into *byte, size int) (n int, ready bool) {
	for {
		n, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(into)), uintptr(size), syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		switch err {
		case 0:
			return int(n), true
		case syscall.EINTR:
		default:
			return 0, err != syscall.EAGAIN
		}
	}
}
