//go:build !linux

package fleet

import "syscall"

// ownGroup gives a process a group of its own. A test binary that is killed leaves it behind.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
