package server

import (
	"errors"
	"math"
	"os"
	"runtime/debug"
	"testing"
)

func TestMachineMemory(t *testing.T) {
	const meminfo = "MemTotal:       24682616 kB\nMemFree:        20000000 kB\n"
	for name, c := range map[string]struct {
		meminfo, group string
		want           int64
	}{
		"a machine":                 {meminfo, "", 24682616 << 10},
		"a container without bound": {meminfo, "max\n", 24682616 << 10},
		"a container":               {meminfo, "1073741824\n", 1 << 30},
		"a bound that is none":      {meminfo, "99999999999999\n", 24682616 << 10},
		"unknown":                   {"", "1073741824\n", 0},
		"nonsense":                  {"MemTotal: lots\n", "", 0},
	} {
		got := machineMemory(func(path string) ([]byte, error) {
			text := c.meminfo
			if path != "/proc/meminfo" {
				text = c.group
			}
			if text == "" {
				return nil, errors.New("no such file")
			}
			return []byte(text), nil
		})
		if got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestTheEnvironmentHasTheLastWordOnTheCollector(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	defer func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) }()
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		tuneCollector(func(asked string) string {
			if asked == name {
				return "50"
			}
			return ""
		})
		if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
			t.Errorf("with %s the memory limit is %d", name, got)
		}
		if got := debug.SetGCPercent(100); got != 100 {
			t.Errorf("with %s the percentage is %d", name, got)
		}
	}
	tuneCollector(func(string) string { return "" })
	if total := machineMemory(os.ReadFile); total > 0 {
		if got := debug.SetMemoryLimit(-1); got != total/100*memoryShare {
			t.Errorf("the memory limit is %d of %d", got, total)
		}
		if got := debug.SetGCPercent(100); got != collectAt {
			t.Errorf("the percentage is %d", got)
		}
	}
}
