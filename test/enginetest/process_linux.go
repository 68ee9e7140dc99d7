package enginetest

import (
	"path/filepath"
	"syscall"
)

// endWithParent has the kernel end the engine with the test binary; it takes its containers along.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }

// release gives up the mounts that an engine leaves in its folder: the network namespace of containers that have the machine's network.
func release(dir string) {
	mounts, _ := filepath.Glob(filepath.Join(dir, "exec/netns/*"))
	for _, m := range mounts {
		_ = syscall.Unmount(m, 0) // what is none, is none
	}
}
