package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestOnce(t *testing.T) {
	name := fmt.Sprint("install-test-", os.Getpid())
	var fills atomic.Int32
	fill := func(_ context.Context, to string) error {
		fills.Add(1)
		if left, err := os.ReadDir(to); err != nil || len(left) != 0 {
			t.Errorf("%s has %v, %v: want it empty", to, left, err)
		}
		return os.WriteFile(filepath.Join(to, "thing"), nil, 0o644)
	}
	once := func(manifest string) string {
		t.Helper()
		got, err := Once(name, []byte(manifest), fill)
		if err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(got, "thing")); err != nil {
			t.Error(err)
		}
		return got
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { once("v1") })
	}
	wg.Wait()
	dir := once("v1")
	t.Cleanup(func() { _, _ = os.RemoveAll(dir), os.Remove(dir+".lock") })
	if fills.Load() != 1 {
		t.Errorf("filled %d times for one manifest", fills.Load())
	}
	if once("v2"); fills.Load() != 2 {
		t.Errorf("filled %d times for two manifests", fills.Load())
	}
	broken := errors.New("broken")
	if _, err := Once(name, []byte("v3"), func(context.Context, string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a failed fill: %v", err)
	}
	if once("v3"); fills.Load() != 3 {
		t.Error("what was half there was not filled again")
	}
}
