package browser

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"tideline/test/enginetest"
	"tideline/test/fleet"
)

// TestOperatorsWatchContainers has a real Docker Engine under the whole system in one process, as `DOCKER_HOST=… make run` does.
func TestOperatorsWatchContainers(t *testing.T) {
	needBrowser(t)
	t.Parallel()
	engine := enginetest.Start(t, enginetest.Options{})
	binary := filepath.Join(t.TempDir(), "harbour")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "tideline/test/browser/harbour")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, image := range []string{"harbour/api:1.4.2", "harbour/pilot:0.9.0", "harbour/ledger:2.1.0"} {
		engine.Image(image, binary)
	}
	engine.Run("harbour/api:1.4.2", "api", "-every", "150ms", "-wait")
	engine.Run("harbour/pilot:0.9.0", "pilot", "-every", "700ms")
	engine.Run("harbour/ledger:2.1.0", "ledger", "-quiet")
	engine.Run("harbour/ledger:2.1.0", "ledger-migrate", "-quiet")
	call(t, func(ctx context.Context) error {
		_, err := engine.API.ContainerStop(ctx, "ledger-migrate", client.ContainerStopOptions{})
		return err
	})

	p := fleet.Run(t, "local", fleet.Binary(t, "local"), []string{"PORT=127.0.0.1:0", "DATA_DIR=" + t.TempDir(), "DOCKER_HOST=" + engine.Host})
	numeric := func(s string) string { return strings.Replace(s, "localhost", "127.0.0.1", 1) }
	origin := numeric(p.Await(`^ready (http://\S+)`)[1])
	operator := numeric(p.Await(`^operator (http://\S+)`)[1])
	signal := func(signal string) func(string) string {
		return func(name string) string {
			call(t, func(ctx context.Context) error {
				_, err := engine.API.ContainerKill(ctx, name, client.ContainerKillOptions{Signal: signal})
				return err
			})
			return ""
		}
	}
	play(t, "logs", origin, verbs{
		"begin":   signal("SIGUSR2"),
		"flood":   signal("SIGUSR1"),
		"restart": func(name string) string { engine.Restart(name); return "" },
		"run":     func(name string) string { engine.Run("harbour/pilot:0.9.0", name, "-every", "500ms"); return "" },
		"remove":  func(name string) string { engine.Remove(name); return "" },
		"hang":    func(string) string { engine.Pause(); return "" },
		"go-on":   func(string) string { engine.Resume(); return "" },
	}, "OPERATOR="+operator)
}

func call(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := f(ctx); err != nil {
		t.Fatal(err)
	}
}
