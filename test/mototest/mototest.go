// Package mototest runs moto's server, a stand-in for S3, and Python programs that use boto3, for tests.
//
// Both are installed once, as requirements.txt pins them, into .cache/moto of the project; that needs Python 3.9 with venv and pip. What is missing is a
// failure that says so, never a skip. moto checks no signature and no expiry: what rests on those is not proved by it.
package mototest

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"tideline/test/install"
	"tideline/test/redistest"
)

// startTimeout bounds the start of the server.
const startTimeout = 60 * time.Second

//go:embed requirements.txt
var requirements []byte

// T is any testing.TB, or a redistest.Scope for TestMain.
type T = redistest.T

// Server is one moto server. It is safe for concurrent use.
type Server struct {
	URL string

	http *http.Client
	cmd  *exec.Cmd
	gone chan struct{}
	log  bytes.Buffer // written by exec until gone
}

// Start starts a server that ends with t.
func Start(t T) *Server {
	t.Helper()
	python, err := Python()
	if err != nil {
		t.Fatalf("mototest: %v", err)
	}
	for attempt := 0; ; attempt++ { // another process may take the free port before the server does
		s, err := launch(python)
		if err == nil {
			t.Cleanup(s.stop)
			return s
		}
		if attempt == 2 {
			t.Fatalf("mototest: start moto: %v", err)
		}
	}
}

func launch(python string) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	s := &Server{URL: "http://127.0.0.1:" + strconv.Itoa(port), gone: make(chan struct{}), http: &http.Client{Transport: &http.Transport{}}}
	s.cmd = exec.Command(python, "-m", "moto.server", "-H", "127.0.0.1", "-p", strconv.Itoa(port))
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.SysProcAttr = &s.log, &s.log, dieWithParent()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // its exit code is the signal's
		close(s.gone)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for !s.answers(ctx) {
		select {
		case <-s.gone:
			return nil, fmt.Errorf("it ended: %s", s.log.Bytes())
		case <-ctx.Done():
			s.stop()
			return nil, fmt.Errorf("it does not answer after %v: %s", startTimeout, s.log.Bytes())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return s, nil
}

func (s *Server) answers(ctx context.Context) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/moto-api/data.json", nil)
	if err != nil {
		return false
	}
	res, err := s.http.Do(r)
	if err != nil {
		return false
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

func (s *Server) stop() {
	_ = s.cmd.Process.Kill() // it may have ended already
	<-s.gone
	s.http.CloseIdleConnections()
}

// Config is what SDK clients of this server are made from. S3 clients need path-style addresses.
func (s *Server) Config() aws.Config {
	return aws.Config{Region: "us-east-1", BaseEndpoint: &s.URL, HTTPClient: s.http, Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")}
}

// Python answers the interpreter that has moto and boto3, and installs them first if need be. Concurrent installs don't disturb each other: an environment
// can't be moved, so each set of requirements has one, made under a lock.
func Python() (string, error) {
	dir, err := install.Once("moto", requirements, func(ctx context.Context, dir string) error {
		wanted := filepath.Join(dir, "requirements.txt")
		if err := os.WriteFile(wanted, requirements, 0o644); err != nil {
			return err
		}
		return install.Python(ctx, dir, wanted)
	})
	return filepath.Join(dir, "bin", "python"), err
}
