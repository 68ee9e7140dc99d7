package server

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// collectAt is how far the heap grows between collections, in percent of what is live. A collection looks at every connection's stack: under
	// a mass connect they were a quarter of the CPU with Go's 100. The garbage doesn't stay: see tidy.
	collectAt = 400
	// memoryShare is the part of the machine's memory, in percent, above which the runtime collects as often as it must to stay below.
	memoryShare = 70
)

// tuneCollector sets the garbage collector for a process that is a node and nothing else. GOGC and GOMEMLIMIT in the environment have the
// last word; where the machine's memory is not known Go's own settings stay.
func tuneCollector(getenv func(string) string) {
	total := machineMemory(os.ReadFile)
	if total == 0 || getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(total / 100 * memoryShare)
	debug.SetGCPercent(collectAt)
}

// machineMemory is what this process may use: the machine's memory, or its container's; 0 if that can't be read. In bytes.
func machineMemory(read func(string) ([]byte, error)) int64 {
	raw, err := read("/proc/meminfo")
	if err != nil {
		return 0
	}
	var total int64
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			total = kb << 10
		}
	}
	if raw, err = read("/sys/fs/cgroup/memory.max"); err == nil {
		if most, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && most > 0 && most < total {
			total = most // "max" is no number
		}
	}
	return total
}
