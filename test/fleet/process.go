package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// T is the part of testing.TB that this package needs. redistest.Scope is one for programs that are no tests.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

const (
	// startTimeout bounds the wait for a process to be ready. A binary built with -race on a busy machine takes seconds.
	startTimeout = 60 * time.Second
	// stopTimeout bounds the wait for a process to end by itself.
	stopTimeout = 60 * time.Second
	// keptLines of a process's output are remembered, the latest.
	keptLines = 5000
)

// trouble in a process's output fails the test, whatever else it asserts.
var trouble = regexp.MustCompile(`WARNING: DATA RACE|^panic: |^fatal error: |goroutine \d+ \[running\]`)

// Process is a running program with its own process group. Its methods are safe for concurrent use.
type Process struct {
	Name  string
	Stdin io.WriteCloser

	t    T
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process and the readers of its output have ended

	mu    sync.Mutex
	more  chan struct{} // closed and replaced at each line
	lines []string
	first int // number of the oldest line kept
	err   error
}

// Run starts a program. Env is added to a minimal environment of its own: no setting of the machine reaches it. When the test ends the
// whole process group is killed, and a data race or a panic in its output fails the test.
func Run(t T, name, path string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, t: t, gone: make(chan struct{}), more: make(chan struct{})}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir(), "GORACE=halt_on_error=0"}, env...)
	p.cmd.SysProcAttr = ownGroup()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatalf("fleet: %v", err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if p.Stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatalf("fleet: %v", err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("fleet: start %s: %v", name, err)
	}
	_ = w.Close()
	read := make(chan struct{})
	go func() { defer close(read); p.read(r) }()
	go func() {
		err := p.cmd.Wait()
		<-read
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.gone)
	}()
	t.Cleanup(func() {
		p.Kill()
		if line := p.find(trouble, 0); line != nil {
			t.Fatalf("%s: %s\n%s", name, line[0], p.Tail())
		}
	})
	return p
}

func (p *Process) read(r *os.File) {
	defer r.Close()
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, s.Text())
		if len(p.lines) > keptLines {
			p.lines = p.lines[1:]
			p.first++
		}
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
	// A line past the buffer: what follows is lost, but the process must not block on its output.
	_, _ = io.Copy(io.Discard, r)
}

// find answers the submatches of the first line that matches, of those kept from number from on.
func (p *Process) find(re *regexp.Regexp, from int) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := max(from-p.first, 0); i < len(p.lines); i++ {
		if m := re.FindStringSubmatch(p.lines[i]); m != nil {
			return m
		}
	}
	return nil
}

// Lines is how many lines of output there were so far: a mark for AwaitAfter.
func (p *Process) Lines() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first + len(p.lines)
}

// Await waits for a line of output and answers its submatches. It fails the test when the process ends first, or after startTimeout.
func (p *Process) Await(pattern string) []string {
	p.t.Helper()
	return p.AwaitAfter(0, pattern)
}

// AwaitAfter is Await for lines after a mark.
func (p *Process) AwaitAfter(mark int, pattern string) []string {
	p.t.Helper()
	return p.AwaitWithin(startTimeout, mark, pattern)
}

// AwaitWithin is AwaitAfter with a deadline of its own, for a program whose next line is a long way off.
func (p *Process) AwaitWithin(within time.Duration, mark int, pattern string) []string {
	p.t.Helper()
	re, late := regexp.MustCompile(pattern), time.After(within)
	for {
		p.mu.Lock()
		more := p.more
		p.mu.Unlock()
		if m := p.find(re, mark); m != nil {
			return m
		}
		select {
		case <-more:
		case <-p.gone:
			if m := p.find(re, mark); m != nil {
				return m
			}
			p.t.Fatalf("%s ended before it said %q:\n%s", p.Name, pattern, p.Tail())
		case <-late:
			p.t.Fatalf("%s did not say %q within %v:\n%s", p.Name, pattern, within, p.Tail())
		}
	}
}

// Tail is the end of the output, for messages.
func (p *Process) Tail() string {
	const lines = 60
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines[max(0, len(p.lines)-lines):], "\n")
}

// Output is what the process has written, the latest lines of it.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// Signal the process alone, not its group.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("signal %s: %v", p.Name, err)
	}
}

// Kill ends the whole process group at once and waits for the process. A second call does nothing.
func (p *Process) Kill() {
	_ = killGroup(p.cmd.Process.Pid) // it may be gone already
	select {
	case <-p.gone:
	case <-time.After(stopTimeout):
		p.t.Fatalf("%s survived SIGKILL for %v", p.Name, stopTimeout)
	}
}

// Wait waits for the process to end by itself and answers its exit code (-1: by a signal). It fails the test after stopTimeout.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.gone:
	case <-time.After(stopTimeout):
		p.t.Fatalf("%s has not ended within %v:\n%s", p.Name, stopTimeout, p.Tail())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// binaries are built once per test process.
var binaries struct {
	once sync.Once
	dir  string
	err  error
}

// Binary is the path of one of the project's commands ("node", "local"), built as the test is: with the race detector if it has it.
func Binary(t T, name string) string {
	t.Helper()
	binaries.once.Do(func() { binaries.dir, binaries.err = build() })
	if binaries.err != nil {
		t.Fatalf("fleet: %v", binaries.err)
	}
	return filepath.Join(binaries.dir, name)
}

func build() (string, error) {
	dir, err := os.MkdirTemp("", "tideline-fleet-")
	if err != nil {
		return "", err
	}
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if Race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "tideline/node", "tideline/local")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
}

// RemoveBinaries is for the end of TestMain.
func RemoveBinaries() {
	if binaries.dir != "" {
		_ = os.RemoveAll(binaries.dir) // what stays is in the temporary folder
	}
}
