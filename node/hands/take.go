package hands

import (
	"io"
	"syscall"
)

// Take reads what Peek has read before; less is an error.
func Take(fd uintptr, into []byte) error {
	for len(into) > 0 {
		n, err := syscall.Read(int(fd), into)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			into = into[n:]
		}
	}
	return nil
}
