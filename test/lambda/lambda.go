// Package lambdatest runs a function's real bootstrap binary against a loopback implementation of the Lambda Runtime API.
//
// What Lambda does, this does: one invocation at a time; the process is frozen (SIGSTOP) when it asks for the next event and there is none;
// an invocation past its deadline kills it; a process that ended is started anew for the next event, which is then a cold start. The
// environment is as bare as Lambda's.
package lambdatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tideline/test/port"
	"tideline/test/redistest"
)

// Timeout is an invocation's deadline unless WithTimeout says otherwise.
const Timeout = 30 * time.Second

// initTimeout is the limit from the process's start to its first request for an event. Lambda's own is 10 s, for which a busy machine may stand still.
const initTimeout = 30 * time.Second

// buildTimeout bounds one build with nothing in the cache.
const buildTimeout = 5 * time.Minute

// T is any testing.TB, or a redistest.Scope for programs.
type T = redistest.T

var builds struct {
	mu   sync.Mutex
	dir  string
	done map[string]string
}

// Build compiles a bootstrap package ("tideline/functions/session/bootstrap") as it is deployed, once per test process, and answers the binary's path.
// Call Cleanup from TestMain to remove the binaries.
func Build(t T, pkg string) string {
	t.Helper()
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if bin := builds.done[pkg]; bin != "" {
		return bin
	}
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "tideline-bootstrap-")
		if err != nil {
			t.Fatalf("lambdatest: %v", err)
		}
		builds.dir, builds.done = dir, map[string]string{}
	}
	bin := filepath.Join(builds.dir, strings.ReplaceAll(pkg, "/", "_"))
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "lambda.norpc", "-ldflags", "-s -w", "-o", bin, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	builds.done[pkg] = bin
	return bin
}

// Cleanup removes what Build made. Call it from TestMain after the tests.
func Cleanup() {
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if builds.dir != "" {
		_ = os.RemoveAll(builds.dir)
		builds.dir, builds.done = "", nil
	}
}

// Function is a deployed function: a binary, an environment, and at most one sandbox. Its methods must not be called concurrently.
type Function struct {
	t    T
	bin  string
	env  []string
	logs *os.File // written by the process itself, so that what it wrote before it answered is there
	box  *sandbox
}

// Deploy makes a function of a binary. Env are further variables, as NAME=value. The sandbox ends with the test.
func Deploy(t T, bin string, env ...string) *Function {
	t.Helper()
	logs, err := os.CreateTemp("", "tideline-function-*.log")
	if err != nil {
		t.Fatalf("lambdatest: %v", err)
	}
	f := &Function{t: t, bin: bin, env: env, logs: logs}
	t.Cleanup(func() {
		f.Kill()
		_ = logs.Close()
		_ = os.Remove(logs.Name())
	})
	return f
}

// Result of one invocation.
type Result struct {
	Payload []byte // the answer; nil after an error
	// Error is what the function reported, or what Lambda would say of its end. Nil after an answer.
	Error     *InvokeError
	RequestID string
	Cold      bool          // the process was started for it
	Took      time.Duration // for a cold start from the start of the process
}

// InvokeError is a failed invocation.
type InvokeError struct {
	Type    string `json:"errorType"`
	Message string `json:"errorMessage"`
}

// Errors that Lambda itself reports.
const (
	ErrorTimedOut = "Sandbox.Timedout"
	ErrorExited   = "Runtime.ExitError"
)

func (e *InvokeError) Error() string { return e.Type + ": " + e.Message }

// Option changes one invocation.
type Option func(*invocation)

// WithTimeout sets the deadline that the function is told, and is held to.
func WithTimeout(d time.Duration) Option { return func(i *invocation) { i.timeout = d } }

// invocation travels from Invoke to the runtime API and back.
type invocation struct {
	id      string
	payload []byte
	timeout time.Duration
	result  chan Result // buffered: the API never waits
}

var requestIDs struct {
	sync.Mutex
	n int
}

// Invoke sends one event and waits for the answer, the error, the deadline or the end of the process.
func (f *Function) Invoke(payload []byte, options ...Option) Result {
	f.t.Helper()
	requestIDs.Lock()
	requestIDs.n++
	id := fmt.Sprintf("%08d-0000-4000-8000-000000000000", requestIDs.n)
	requestIDs.Unlock()
	inv := &invocation{id: id, payload: payload, timeout: Timeout, result: make(chan Result, 1)}
	for _, o := range options {
		o(inv)
	}
	started := time.Now()
	cold := false
	if f.box != nil && f.box.exited() {
		f.Kill()
	}
	if f.box == nil {
		f.box, cold = f.start(), true
	}
	r := f.box.run(f.t, inv, cold)
	r.RequestID, r.Cold, r.Took = id, cold, time.Since(started)
	if r.Error != nil && (r.Error.Type == ErrorTimedOut || r.Error.Type == ErrorExited) {
		f.Kill()
	}
	return r
}

// Logs is all that the function wrote so far, over all its sandboxes.
func (f *Function) Logs() string {
	b, err := os.ReadFile(f.logs.Name())
	if err != nil {
		f.t.Fatalf("lambdatest: %v", err)
	}
	return string(b)
}

// Kill throws the sandbox away, as Lambda does: without a word. The next event is a cold start.
func (f *Function) Kill() {
	if f.box != nil {
		f.box.kill()
		f.box = nil
	}
}

// FreePort answers a TCP port of loopback that nobody listens on.
func FreePort(t T) int {
	t.Helper()
	n, err := strconv.Atoi(port.Free(t))
	if err != nil {
		t.Fatalf("lambdatest: %v", err)
	}
	return n
}

// pollTimeout is how long Poll waits for what normally takes milliseconds, on a machine that may stand still for some seconds.
const pollTimeout = 60 * time.Second

// Poll calls ready every few milliseconds until it answers nil, and fails the test with its last error after pollTimeout.
func Poll(t T, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pollTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("lambdatest: %v", errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// Ended answers nil once the sandbox's process has ended by itself. For Poll.
func (f *Function) Ended(context.Context) error {
	if f.box == nil || f.box.exited() {
		return nil
	}
	return errors.New("the process still runs")
}
