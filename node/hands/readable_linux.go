package hands

import (
	"syscall"
	"unsafe"
)

// Readable reports whether reading would not block. It is called by the runtime's poller with the socket; by the system call itself, because the
// package's function for it takes more stack than a resting connection should have.
func Readable(fd uintptr) bool {
	var b byte
	for {
		_, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if err != syscall.EINTR {
			return err != syscall.EAGAIN
		}
	}
}
