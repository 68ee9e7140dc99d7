// Package redistest runs real redis-servers for tests and demonstrations, and breaks them.
//
// Everything listens on free ports of the loopback address and keeps its files in a temporary folder. With a T (any testing.TB) all of it
// is ended by Cleanup, also when the test fails; programs pass a Scope of their own and call its End. A redis-server that can't be
// started is a failure, never a skip.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"tideline/test/port"
)

// startTimeout bounds every wait for a server to start, to link up, or to agree.
const startTimeout = 60 * time.Second

// T is the part of testing.TB that this package needs.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Scope is a T for programs that are no tests: Fatalf panics, and End runs the clean-ups. It is safe for concurrent use.
type Scope struct {
	mu       sync.Mutex
	cleanups []func()
}

// Helper does nothing.
func (s *Scope) Helper() {}

// Fatalf panics with an error.
func (s *Scope) Fatalf(format string, args ...any) { panic(fmt.Errorf(format, args...)) }

// Cleanup registers f for End.
func (s *Scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

// End runs what was registered, last first. It may be called more than once.
func (s *Scope) End() {
	s.mu.Lock()
	fs := s.cleanups
	s.cleanups = nil
	s.mu.Unlock()
	for i := len(fs) - 1; i >= 0; i-- {
		fs[i]()
	}
}

// Server is one redis-server process. Its methods are not safe for concurrent use with each other, except Do.
type Server struct {
	// Port it listens on, on 127.0.0.1; with TLS this is the TLS port. It stays the same over Restart.
	Port int

	t    T
	dir  string
	args []string
	tls  *TLSFiles

	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has been waited for
}

// Start starts a standalone redis-server that keeps nothing on disk. More settings are given as on its command line:
// Start(t, "--appendonly", "yes").
func Start(t T, settings ...string) *Server {
	t.Helper()
	return start(t, nil, settings...)
}

func start(t T, files *TLSFiles, settings ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s := &Server{t: t, dir: dir, args: settings, tls: files}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir)
	})
	// Another process may take the free port before the server does: then another one is tried.
	for attempt := 0; ; attempt++ {
		s.Port = freePort(t)
		err := s.launch()
		if err == nil {
			return s
		}
		if attempt == 4 {
			t.Fatalf("redistest: start redis-server: %v", err)
		}
	}
}

func freePort(t T) int {
	t.Helper()
	n, err := strconv.Atoi(port.Free(t))
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return n
}

// launch starts the process and waits until it answers.
func (s *Server) launch() error {
	args := []string{"--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no", "--daemonize", "no",
		"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-backlog-ttl", "0", "--repl-timeout", "60", "--enable-debug-command", "yes"}
	if s.tls != nil {
		args = append(args, "--port", "0", "--tls-port", strconv.Itoa(s.Port), "--tls-cert-file", s.tls.Cert, "--tls-key-file", s.tls.Key,
			"--tls-ca-cert-file", s.tls.Cert, "--tls-auth-clients", "no")
	} else {
		args = append(args, "--port", strconv.Itoa(s.Port))
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("redis-server", append(args, s.args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	// The server dies with the test binary, whatever ends it.
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(gone)
	}()
	s.cmd, s.gone = cmd, gone
	err = poll(startTimeout, func() error {
		select {
		case <-gone:
			return fatal{errors.New("redis-server ended: " + s.tail())}
		default:
		}
		_, err := s.Try("PING")
		if said, ok := errors.AsType[Error](err); ok && !said.loading() {
			return nil // it wants a password: it is up
		}
		return err
	})
	if err != nil {
		s.Kill()
	}
	return err
}

func (s *Server) tail() string {
	data, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(data[max(0, len(data)-600):])
}

// Addr is "127.0.0.1:port".
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// URL is what bus.Options.URL takes.
func (s *Server) URL() string {
	if s.tls != nil {
		return "rediss://" + s.Addr()
	}
	return "redis://" + s.Addr()
}

// Stop ends the server as an operator would (SIGTERM: it saves what it is set to save) and waits.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once (SIGKILL) and waits.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.gone:
	case <-time.After(startTimeout):
		_ = s.cmd.Process.Kill()
		<-s.gone
	}
	s.cmd = nil
}

// Pause stops the process in its tracks (SIGSTOP): connections stay open and nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		s.t.Fatalf("redistest: signal %v to a server that is not running", sig)
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("redistest: signal %v: %v", sig, err)
	}
}

// Restart starts the server again on its port, after Stop or Kill (or stops it first). What it remembers depends on its settings.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.launch(); err != nil {
		s.t.Fatalf("redistest: restart redis-server: %v", err)
	}
}

// ReplicaOf makes the server a replica of primary and waits until it has caught up.
func (s *Server) ReplicaOf(primary *Server) {
	s.t.Helper()
	s.Do("REPLICAOF", "127.0.0.1", strconv.Itoa(primary.Port))
	s.WaitLinked()
}

// WaitLinked waits until the replica's link to its primary is up.
func (s *Server) WaitLinked() {
	s.t.Helper()
	err := poll(startTimeout, func() error {
		if s.Info("replication", "master_link_status") != "up" {
			return errors.New("replication link is down")
		}
		return nil
	})
	if err != nil {
		s.t.Fatalf("redistest: replica %d: %v", s.Port, err)
	}
}

// Promote makes a replica a primary.
func (s *Server) Promote() {
	s.t.Helper()
	s.Do("REPLICAOF", "NO", "ONE")
}

// StartPair starts a primary and a replica that follows it. The backlog is never freed, so that the replication id only changes when it must.
func StartPair(t T, settings ...string) (primary, replica *Server) {
	t.Helper()
	primary, replica = Start(t, settings...), Start(t, settings...)
	replica.ReplicaOf(primary)
	return primary, replica
}

// fatal ends a poll.
type fatal struct{ error }

// poll calls f every few milliseconds until it answers nil, and gives up with its last error.
func poll(timeout time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if f, ok := errors.AsType[fatal](err); ok {
			return f.error
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
