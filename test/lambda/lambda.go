// Package lambdatest runs a function's real bootstrap binary against a loopback implementation of the Lambda Runtime API.
//
// What Lambda does, this does: one invocation at a time; the process is frozen (SIGSTOP) when it asks for the next event and there is none;
// an invocation past its deadline kills it; a process that ended is started anew for the next event, which is then a cold start. The
// environment is as bare as Lambda's.
package lambdatest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tideline/test/redistest"
)

// Timeout is an invocation's deadline unless WithTimeout says otherwise.
const Timeout = 10 * time.Second

// initTimeout is Lambda's own limit from the process's start to its first request for an event.
const initTimeout = 10 * time.Second

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
	logs syncBuffer
	box  *sandbox
}

// Deploy makes a function of a binary. Env are further variables, as NAME=value. The sandbox ends with the test.
func Deploy(t T, bin string, env ...string) *Function {
	t.Helper()
	f := &Function{t: t, bin: bin, env: env}
	t.Cleanup(f.Kill)
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
func (f *Function) Logs() string { return f.logs.String() }

// Kill throws the sandbox away, as Lambda does: without a word. The next event is a cold start.
func (f *Function) Kill() {
	if f.box != nil {
		f.box.kill()
		f.box = nil
	}
}

// sandbox is one process and the runtime API that it talks to.
type sandbox struct {
	cmd    *exec.Cmd
	server *http.Server
	served chan struct{}
	ended  chan struct{} // closed when the process has been waited for

	next chan *invocation // to the API: unbuffered, one at a time

	mu      sync.Mutex
	frozen  bool
	working *invocation // what the process was given and has not answered
}

func (f *Function) start() *sandbox {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatalf("lambdatest: %v", err)
	}
	b := &sandbox{served: make(chan struct{}), ended: make(chan struct{}), next: make(chan *invocation)}
	b.server = &http.Server{Handler: b.api(), ReadHeaderTimeout: 10 * time.Second}
	go func() { defer close(b.served); _ = b.server.Serve(l) }()
	b.cmd = exec.Command(f.bin)
	b.cmd.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + l.Addr().String(), "AWS_LAMBDA_FUNCTION_NAME=test", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256",
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"AWS_EC2_METADATA_DISABLED=true", "LANG=en_US.UTF-8", "TZ=:UTC", "HOME=/nonexistent", "PATH=/usr/bin:/bin"}, f.env...)
	b.cmd.Dir = "/"
	b.cmd.Stdout, b.cmd.Stderr = &f.logs, &f.logs
	if err := b.cmd.Start(); err != nil {
		_ = b.server.Close()
		<-b.served
		f.t.Fatalf("lambdatest: %v", err)
	}
	go func() { defer close(b.ended); _ = b.cmd.Wait() }()
	return b
}

func (b *sandbox) exited() bool {
	select {
	case <-b.ended:
		return true
	default:
		return false
	}
}

func (b *sandbox) run(t T, inv *invocation, cold bool) Result {
	t.Helper()
	wait := inv.timeout
	if cold {
		wait += initTimeout
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	sent := b.next
	for {
		select {
		case sent <- inv:
			sent = nil // from here its own timeout counts
			deadline.Reset(inv.timeout)
		case r := <-inv.result:
			return r
		case <-b.ended:
			select {
			case r := <-inv.result: // it answered, then ended
				return r
			default:
			}
			return Result{Error: &InvokeError{ErrorExited, "Runtime exited: " + b.cmd.ProcessState.String()}}
		case <-deadline.C:
			return Result{Error: &InvokeError{ErrorTimedOut, fmt.Sprintf("Task timed out after %v", inv.timeout)}}
		}
	}
}

func (b *sandbox) kill() {
	_ = b.cmd.Process.Kill() // also when frozen; an error means that it has ended
	<-b.ended
	_ = b.server.Close()
	<-b.served
}

// thaw lets the process go on, with an event.
func (b *sandbox) thaw(inv *invocation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.working = inv
	if b.frozen {
		b.frozen = false
		_ = b.cmd.Process.Signal(syscall.SIGCONT)
	}
}

func (b *sandbox) freeze() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = true
	_ = b.cmd.Process.Signal(syscall.SIGSTOP)
}

// api is the runtime API, version 2018-06-01.
func (b *sandbox) api() http.Handler {
	mux := http.NewServeMux()
	const base = "/2018-06-01/runtime/"
	mux.HandleFunc("GET "+base+"invocation/next", b.serveNext)
	mux.HandleFunc("POST "+base+"invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) {
		b.finish(w, r, func(body []byte) Result { return Result{Payload: body} })
	})
	mux.HandleFunc("POST "+base+"invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) {
		b.finish(w, r, func(body []byte) Result {
			e := &InvokeError{}
			if err := json.Unmarshal(body, e); err != nil {
				e.Type, e.Message = "harness", err.Error()
			}
			return Result{Error: e}
		})
	})
	return mux
}

func (b *sandbox) serveNext(w http.ResponseWriter, r *http.Request) {
	var inv *invocation
	select {
	case inv = <-b.next:
	default:
		b.freeze()
		select {
		case inv = <-b.next:
		case <-r.Context().Done():
			return
		}
	}
	b.thaw(inv)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(inv.timeout).UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:123456789012:function:test")
	h.Set("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1")
	_, _ = w.Write(inv.payload)
}

func (b *sandbox) finish(w http.ResponseWriter, r *http.Request, result func([]byte) Result) {
	body, err := io.ReadAll(r.Body)
	b.mu.Lock()
	inv := b.working
	b.working = nil
	b.mu.Unlock()
	if err != nil || inv == nil || inv.id != r.PathValue("id") {
		http.Error(w, "no such invocation", http.StatusForbidden)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	inv.result <- result(body)
}

// syncBuffer is written by the process and read by the test.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// FreePort answers a TCP port on loopback that was free a moment ago.
func FreePort(t T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("lambdatest: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Poll calls ready every few milliseconds until it answers nil, and fails the test with its last error after ten seconds.
func Poll(t T, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
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
