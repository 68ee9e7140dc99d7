// Package install keeps what tests fetch from package registries, in .cache of the project, so that it is fetched once.
package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// timeout bounds one download, which happens once.
const timeout = 5 * time.Minute

// Once answers the folder .cache/<name>, and fills it first unless it was filled for the same manifest, which pins the versions of what is in it.
// fill gets the folder empty, under its final name, because a Python environment can't be moved. Safe for concurrent use, also by several
// processes: one fills, the others wait.
func Once(name string, manifest []byte, fill func(ctx context.Context, dir string) error) (string, error) {
	root, err := projectRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".cache", name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	stamp := filepath.Join(dir, "manifest")
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, manifest) {
		return dir, nil
	}
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return "", err
	}
	if err := fill(ctx, dir); err != nil {
		return "", fmt.Errorf("install %s: %w", name, err)
	}
	return dir, os.WriteFile(stamp, manifest, 0o644) // last: what is half there is fetched again
}

// Python makes a virtual environment in dir with what a file of requirements pins.
func Python(ctx context.Context, dir, requirements string) error {
	if err := Command(ctx, "python3", "-m", "venv", dir); err != nil {
		return fmt.Errorf("Python 3 with venv is needed (on Debian: apt-get install python3-venv): %w", err)
	}
	return Command(ctx, filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements)
}

// Command runs a program; its error has what it said.
func Command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", name, args, err, out)
	}
	return nil
}

// lock takes the file's lock, which the kernel gives back if the process dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for %s: %w", path, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod above the working directory")
}
