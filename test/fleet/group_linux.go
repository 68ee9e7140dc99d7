package fleet

import "syscall"

// ownGroup gives a process a group of its own, and has the kernel kill it when the test binary ends, however it does.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
