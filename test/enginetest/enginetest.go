// Package enginetest runs a real Docker Engine for tests, on a socket and in folders of its own, and removes all of it with the test.
//
// It needs Linux, root and the dockerd of Debian's docker.io. Where the rights are missing the test is skipped and says so; with CI=true it fails.
package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"tideline/test/port"
)

const (
	startTimeout = 90 * time.Second
	stopTimeout  = 60 * time.Second
	callTimeout  = 60 * time.Second
)

// Options of Start.
type Options struct {
	// TLS makes the engine listen on TCP as well, for clients with a certificate.
	TLS bool
}

// Engine is a running engine. Its methods fail the test; they are safe for concurrent use but for Stop, Start, Pause and Resume.
type Engine struct {
	Host  string         // unix:///…
	TCP   string         // tcp://127.0.0.1:port, with Options.TLS
	Certs string         // folder of ca.pem, cert.pem and key.pem, with Options.TLS
	API   *client.Client // of Host

	t    testing.TB
	dir  string
	args []string
	cmd  *exec.Cmd
	gone chan struct{}
}

// Start starts an engine and waits until it answers.
func Start(t testing.TB, o Options) *Engine {
	t.Helper()
	if runtime.GOOS != "linux" {
		missing(t, "a Docker Engine of the test's own needs Linux")
	}
	if os.Geteuid() != 0 {
		missing(t, "a Docker Engine of the test's own needs root")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Fatalf("enginetest: %v: make setup installs it on Debian (docker.io)", err)
	}
	dir, err := os.MkdirTemp("", "engine-") // short: it holds sockets
	if err != nil {
		t.Fatalf("enginetest: %v", err)
	}
	e := &Engine{t: t, dir: dir, Host: "unix://" + dir + "/d.sock"}
	t.Cleanup(func() {
		e.Stop()
		release(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("enginetest: left behind: %v", err)
		}
	})
	e.args = []string{"--host", e.Host, "--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid", "--config-file", dir + "/none.json",
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--shutdown-timeout", "5"}
	if err := os.WriteFile(dir+"/none.json", []byte("{}"), 0o600); err != nil {
		t.Fatalf("enginetest: %v", err)
	}
	if o.TLS {
		e.TCP, e.Certs = "tcp://127.0.0.1:"+port.Free(t), filepath.Join(dir, "certs")
		writeCertificates(t, e.Certs)
		e.args = append(e.args, "--host", e.TCP, "--tlsverify", "--tlscacert", e.Certs+"/ca.pem", "--tlscert", e.Certs+"/server.pem", "--tlskey", e.Certs+"/server-key.pem")
	}
	if e.API, err = client.New(client.WithHost(e.Host)); err != nil {
		t.Fatalf("enginetest: %v", err)
	}
	e.Start()
	return e
}

// missing says what the machine lacks.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("enginetest: %s, and CI must have it", what)
	}
	t.Skipf("NOT TESTED: %s", what)
}

// Start starts the engine again after Stop.
func (e *Engine) Start() {
	e.t.Helper()
	log, err := os.OpenFile(e.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatalf("enginetest: %v", err)
	}
	defer log.Close()
	e.cmd = exec.Command("dockerd", e.args...)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = endWithParent()
	if err := e.cmd.Start(); err != nil {
		e.t.Fatalf("enginetest: %v", err)
	}
	gone := make(chan struct{})
	e.gone = gone
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // how it ended is in its log
		close(gone)
	}(e.cmd)
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := e.API.Ping(ctx, client.PingOptions{})
		cancel()
		if err == nil {
			return
		}
		select {
		case <-gone:
			tail := e.tail()
			e.cmd = nil
			if strings.Contains(tail, "not permitted") || strings.Contains(tail, "ermission denied") {
				missing(e.t, "dockerd has not the rights to run here:\n"+tail)
			}
			e.t.Fatalf("enginetest: dockerd ended:\n%s", tail)
		default:
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("enginetest: dockerd does not answer: %v\n%s", err, e.tail())
		}
	}
}

func (e *Engine) tail() string {
	data, _ := os.ReadFile(e.dir + "/log")
	return string(data[max(0, len(data)-2000):])
}

// Stop ends the engine and its containers.
func (e *Engine) Stop() {
	if e.cmd == nil {
		return
	}
	_ = e.cmd.Process.Signal(syscall.SIGCONT)
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.gone:
	case <-time.After(stopTimeout):
		_ = e.cmd.Process.Kill()
		<-e.gone
		e.t.Errorf("enginetest: dockerd did not end within %v:\n%s", stopTimeout, e.tail())
	}
	e.cmd = nil
}

// Pause stops the engine in its tracks: its socket takes connections and nothing answers.
func (e *Engine) Pause() { _ = e.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (e *Engine) Resume() { _ = e.cmd.Process.Signal(syscall.SIGCONT) }

// Image makes an image FROM scratch of one static binary, which it runs, and of nothing else.
func (e *Engine) Image(name, binary string, changes ...string) {
	e.t.Helper()
	data, err := os.ReadFile(binary)
	if err != nil {
		e.t.Fatalf("enginetest: %v", err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_, base := filepath.Split(binary)
	err = errors.Join(w.WriteHeader(&tar.Header{Name: base, Mode: 0o755, Size: int64(len(data))}), writeAll(w, data), w.Close())
	if err != nil {
		e.t.Fatalf("enginetest: %v", err)
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), callTimeout)
	defer cancel()
	res, err := e.API.ImageImport(ctx, client.ImageImportSource{Source: &buf, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: append([]string{fmt.Sprintf(`ENTRYPOINT [%q]`, "/"+base)}, changes...)})
	if err != nil {
		e.t.Fatalf("enginetest: import: %v", err)
	}
	defer res.Close()
	if _, err := new(bytes.Buffer).ReadFrom(res); err != nil {
		e.t.Fatalf("enginetest: import: %v", err)
	}
}

func writeAll(w *tar.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

// Run creates and starts a container without a network.
func (e *Engine) Run(image, name string, args ...string) { e.RunAs(image, name, false, args...) }

// RunAs is Run, with a terminal if tty.
func (e *Engine) RunAs(image, name string, tty bool, args ...string) {
	e.t.Helper()
	e.call("create", func(ctx context.Context) error {
		_, err := e.API.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name,
			Config: &container.Config{Image: image, Cmd: args, Tty: tty}, HostConfig: &container.HostConfig{NetworkMode: "none"}})
		return err
	})
	e.call("start", func(ctx context.Context) error {
		_, err := e.API.ContainerStart(ctx, name, client.ContainerStartOptions{})
		return err
	})
}

// Restart stops a container gently and starts it again.
func (e *Engine) Restart(name string) {
	e.t.Helper()
	e.call("restart", func(ctx context.Context) error {
		_, err := e.API.ContainerRestart(ctx, name, client.ContainerRestartOptions{})
		return err
	})
}

// Remove removes a container, running or not.
func (e *Engine) Remove(name string) {
	e.t.Helper()
	e.call("remove", func(ctx context.Context) error {
		_, err := e.API.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true})
		return err
	})
}

func (e *Engine) call(what string, f func(context.Context) error) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), callTimeout)
	defer cancel()
	if err := f(ctx); err != nil {
		e.t.Fatalf("enginetest: %s: %v", what, err)
	}
}
