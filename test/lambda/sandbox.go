package lambdatest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

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
	b.cmd = exec.Command(f.bin)
	b.cmd.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + l.Addr().String(), "AWS_LAMBDA_FUNCTION_NAME=test", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256",
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"AWS_EC2_METADATA_DISABLED=true", "LANG=en_US.UTF-8", "TZ=:UTC", "HOME=/nonexistent", "PATH=/usr/bin:/bin"}, f.env...)
	b.cmd.Dir = "/"
	b.cmd.Stdout, b.cmd.Stderr = f.logs, f.logs
	go func() { defer close(b.served); _ = b.server.Serve(l) }()
	b.mu.Lock() // the process may ask for its first event, and be frozen, before Start has returned
	err = b.cmd.Start()
	b.mu.Unlock()
	if err != nil {
		_ = b.server.Close()
		<-b.served
		f.t.Fatalf("lambdatest: %v", err)
	}
	go func() { defer close(b.ended); _ = b.cmd.Wait() }()
	return b
}

const (
	// pause is how late a deadline must be noticed for the machine to have stood still, excuse what the function then has on top.
	pause  = 100 * time.Millisecond
	excuse = time.Second
)

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
	deadline, due := time.NewTimer(wait), time.Now().Add(wait)
	defer deadline.Stop()
	sent, excused := b.next, false
	for {
		select {
		case sent <- inv:
			sent = nil // from here its own timeout counts
			deadline.Reset(inv.timeout)
			due = time.Now().Add(inv.timeout)
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
			if !excused && time.Since(due) > pause { // the machine stood still, and the function with it
				excused = true
				deadline.Reset(excuse)
				continue
			}
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
