package main

import (
	"fmt"
	"os"
	"os/exec"
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

// tick is the unit of /proc/<pid>/stat: USER_HZ is 100 wherever Linux runs.
const tick = time.Second / 100

// cpu is the time that a process and its threads have had, user and system.
func cpu(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses, with anything in it.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	var sum time.Duration
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += time.Duration(n) * tick
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
