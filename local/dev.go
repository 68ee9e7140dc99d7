package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// devPage is the page's development server, a child process that reloads the page as its sources change.
type devPage struct {
	url   *url.URL
	front string // where the whole system answers
}

func newDevPage(ctx context.Context, front string) (*devPage, error) {
	if _, err := exec.LookPath("npm"); err != nil {
		return nil, errors.New("-dev: npm is not there; install Node.js 20.19 or later")
	}
	// A free port, given back for the child to take: another program could take it in between, and then the child says so.
	l, err := loopback(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return &devPage{url: urlOf(l), front: front}, nil
}

// run runs the server until ctx ends, and ends the child's whole process group.
func (p *devPage) run(ctx context.Context) error {
	_, port, err := net.SplitHostPort(p.url.Host)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "npm", "run", "--silent", "dev", "--", "--host", "127.0.0.1", "--port", port, "--strictPort",
		"--clearScreen", "false", "--logLevel", "warn")
	cmd.Dir = "web"
	// What is not the page never comes to it, so it needs no edge of its own to develop against.
	cmd.Env = append(os.Environ(), "TIDELINE="+p.front)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // npm starts a shell that starts the server
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever ignored the polite one; usually nobody is left
		}
		return nil
	}
	if err == nil {
		err = errors.New("no error")
	}
	return fmt.Errorf("the page's development server ended: %w; did npm ci run in web/? make dev does both", err)
}
