package mototest

import "syscall"

// dieWithParent has the kernel kill the server when the thread that started it ends. The Go runtime keeps its threads, so that is
// when the test binary ends, however it does.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
