package enginetest

import "syscall"

// endWithParent has the kernel end the engine with the test binary; it takes its containers along.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
