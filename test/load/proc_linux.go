package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The cores of a pinned run.
const (
	serverCore    = "0"
	generatorCore = "1"
)

// cpu is the time that a process's threads have had, user and system, to the nanosecond; /proc/<pid>/stat counts hundredths of a second. Threads that
// have ended are not in it: what is measured here keeps its own.
func cpu(pid int) (time.Duration, error) {
	folder := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(folder)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range threads {
		// The first field (Documentation/scheduler/sched-stats.rst of the kernel).
		raw, err := os.ReadFile(filepath.Join(folder, t.Name(), "schedstat"))
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(raw), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("schedstat of %d: %w", pid, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// memory is a process's proportional set size, in bytes: what is resident, shared pages by halves.
func memory(pid int) (int, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/smaps_rollup has no Pss", pid)
}

// pinSelf starts the program anew on the generator's core, where Redis will be, too; it returns when that is done already, or fails.
func pinSelf() error {
	path, err := exec.LookPath("taskset")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	const done = "LOAD_PINNED"
	if os.Getenv(done) != "" {
		return nil
	}
	args := append([]string{"taskset", "-c", generatorCore, self}, os.Args[1:]...)
	return syscall.Exec(path, args, append(os.Environ(), done+"=1"))
}

// machine is a line about where this runs.
func machine() string {
	model := "unknown CPU"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				model = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
				break
			}
		}
	}
	kernel := ""
	if raw, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(raw))
	}
	cores := 0
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		cores = strings.Count(string(raw), "processor\t:")
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s", model, cores, kernel, runtime.Version())
}
