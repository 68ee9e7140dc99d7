package compose

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"tideline/test/dynamotest"
	"tideline/test/enginetest"
	"tideline/test/fleet"
	"tideline/test/port"
	"tideline/test/redistest"
)

// The images are what the Dockerfile's last stages make; only what the stages before would have built comes from this machine.
func TestImages(t *testing.T) {
	t.Parallel()
	e := enginetest.Start(t, enginetest.Options{})
	for _, stage := range []string{"node", "functions"} {
		build(t, e, stage)
	}
	redis := redistest.Start(t)

	t.Run("node", func(t *testing.T) {
		public, private := port.Free(t), port.Free(t)
		run(t, e, "node", "tideline/node:local", nil, nil, []string{"PORT=127.0.0.1:" + public, "PRIVATE_PORT=127.0.0.1:" + private, "REDIS_URL=" + redis.URL(),
			"TOKEN_SECRETS=" + fleet.Secret, "DRAIN_GRACE=100ms", "DRAIN_WINDOW=100ms"})
		fleet.Poll(t, "the node is healthy", func() error {
			if code := execute(t, e, "node", "/compose", "health", "http://127.0.0.1:"+private+"/readyz"); code != 0 {
				return fmt.Errorf("health check: %d", code)
			}
			return nil
		})
		if code := execute(t, e, "node", "/compose", "health", "http://127.0.0.1:"+private+"/nowhere"); code == 0 {
			t.Error("the health check is satisfied with anything")
		}
		res, err := http.Get("http://127.0.0.1:" + public + "/")
		if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("X-Tideline-Node") == "" {
			t.Fatalf("page: %v %v", res, err)
		}
		res.Body.Close()
		if code := stop(t, e, "node"); code != 0 {
			t.Errorf("SIGTERM: exit code %d", code)
		}
	})
	t.Run("functions", func(t *testing.T) {
		db := dynamotest.Start(t)
		env := append(db.Environment(), "STAGE=compose", "REDIS_URL="+redis.URL(), "TODO_TABLE=todos", "SESSION_TABLE=sessions", "SECRETS_DIR=/secrets",
			"TOKEN_SECRETS=@/secrets/token", "FILES_DIR=/files", "FILES_SECRET=@/secrets/files")
		volumes := map[string]string{"secrets": "/secrets", "files": "/files"}
		run(t, e, "setup", "tideline/functions:local", volumes, []string{"/compose", "setup"}, env)
		if code := wait(t, e, "setup"); code != 0 { // it could write to its volume, and is nobody
			t.Fatalf("setup: exit code %d: %s", code, logs(t, e, "setup"))
		}
		for _, name := range []string{"session", "todos", "tasks", "outbox"} {
			public, private := port.Free(t), port.Free(t)
			run(t, e, name, "tideline/functions:local", volumes, []string{"/" + name}, append([]string{"PORT=" + public, "PRIVATE_PORT=" + private}, env...))
			fleet.Poll(t, name+" is healthy", func() error {
				if code := execute(t, e, name, "/compose", "health", "http://127.0.0.1:"+private+"/healthz"); code != 0 {
					return fmt.Errorf("health check: %d: %s", code, logs(t, e, name))
				}
				return nil
			})
		}
		for _, name := range []string{"session", "todos", "tasks", "outbox"} {
			if code := stop(t, e, name); code != 0 {
				t.Errorf("%s: SIGTERM: exit code %d: %s", name, code, logs(t, e, name))
			}
		}
	})
	t.Run("nobody", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for _, image := range []string{"tideline/node:local", "tideline/functions:local"} {
			res, err := e.API.ImageInspect(ctx, image)
			if err != nil || res.Config == nil || res.Config.User != "65532:65532" {
				t.Errorf("%s: %+v, %v", image, res.Config, err)
			}
		}
		// There is no shell.
		if code := runToEnd(t, e, "shell", "tideline/node:local", []string{"/bin/sh", "-c", "true"}); code == 0 {
			t.Error("the image has a shell")
		}
	})
}

// build makes an image of one of the Dockerfile's last stages, whose COPY --from=build take what this machine has built.
func build(t *testing.T, e *enginetest.Engine, stage string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(raw), "FROM scratch AS "+stage+"\n")
	if !found {
		t.Fatalf("Dockerfile has no stage %s from scratch", stage)
	}
	rest, _, _ = strings.Cut(rest, "\nFROM ")
	dockerfile := "FROM scratch\n" + regexp.MustCompile(`--from=build |^#.*`).ReplaceAllString(rest, "")
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name string, data []byte, mode int64) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add("Dockerfile", []byte(dockerfile), 0o644)
	add("etc/ssl/certs/ca-certificates.crt", []byte("no authority is needed here\n"), 0o644)
	if err := w.WriteHeader(&tar.Header{Name: "out/empty/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node", "compose", "session", "todos", "tasks", "outbox"} {
		data, err := os.ReadFile(binary(t, name))
		if err != nil {
			t.Fatal(err)
		}
		add("out/bin/"+name, data, 0o755)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	res, err := e.API.ImageBuild(ctx, &buf, client.ImageBuildOptions{Tags: []string{"tideline/" + stage + ":local"}, Remove: true})
	if err != nil {
		t.Fatalf("build %s: %v", stage, err)
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(said), "Successfully tagged") {
		t.Fatalf("build %s: %s %v", stage, said, err)
	}
}

// run starts a container as compose.yaml confines it. It has the machine's network: the test's engine has no other.
func run(t *testing.T, e *enginetest.Engine, name, image string, volumes map[string]string, entrypoint, env []string) {
	t.Helper()
	host := &container.HostConfig{NetworkMode: "host", ReadonlyRootfs: true, CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges:true"}}
	host.Memory = 512 << 20
	if name == "tasks" {
		host.Tmpfs = map[string]string{"/tmp": ""}
	}
	for v, path := range volumes {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: v, Target: path})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := e.API.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: &container.Config{Image: image, Entrypoint: entrypoint, Env: env}, HostConfig: host})
	if err == nil {
		_, err = e.API.ContainerStart(ctx, name, client.ContainerStartOptions{})
	}
	if err != nil {
		t.Fatalf("run %s: %v", name, err)
	}
}

func runToEnd(t *testing.T, e *enginetest.Engine, name, image string, entrypoint []string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := e.API.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: &container.Config{Image: image, Entrypoint: entrypoint}, HostConfig: &container.HostConfig{NetworkMode: "none"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.API.ContainerStart(ctx, name, client.ContainerStartOptions{}); err != nil {
		return -1 // there is no such program
	}
	return wait(t, e, name)
}

// execute runs a command in a container and answers its exit code.
func execute(t *testing.T, e *enginetest.Engine, name string, command ...string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	created, err := e.API.ExecCreate(ctx, name, client.ExecCreateOptions{Cmd: command, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return -1 // the container has ended
	}
	attached, err := e.API.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	_, _ = io.Copy(io.Discard, attached.Reader) // until the command ends
	res, err := e.API.ExecInspect(ctx, created.ID, client.ExecInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return res.ExitCode
}

func stop(t *testing.T, e *enginetest.Engine, name string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := e.API.ContainerStop(ctx, name, client.ContainerStopOptions{}); err != nil {
		t.Fatalf("stop %s: %v", name, err)
	}
	return wait(t, e, name)
}

// wait answers the exit code of a container that ends.
func wait(t *testing.T, e *enginetest.Engine, name string) (code int) {
	t.Helper()
	fleet.Poll(t, name+" ends", func() error {
		res, err := e.API.ContainerInspect(t.Context(), name, client.ContainerInspectOptions{})
		if err == nil && res.Container.State.Running {
			err = fmt.Errorf("it runs")
		}
		if err == nil {
			code = res.Container.State.ExitCode
		}
		return err
	})
	return code
}

func logs(t *testing.T, e *enginetest.Engine, name string) string {
	t.Helper()
	res, err := e.API.ContainerLogs(t.Context(), name, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return err.Error()
	}
	defer res.Close()
	data, _ := io.ReadAll(res)
	return string(data)
}

// The door to Docker's socket lets a node watch containers, and nobody do anything.
func TestDockerDoor(t *testing.T) {
	t.Parallel()
	e := enginetest.Start(t, enginetest.Options{})
	e.Image("tideline/door:test", binary(t, "compose"))
	e.Run("tideline/door:test", "speaker") // prints its usage and ends
	door := port.Free(t)
	startNginx(t, "docker.conf", map[string]string{"listen 2375;": "listen 127.0.0.1:" + door + ";", "unix:/var/run/docker.sock": "unix:" + strings.TrimPrefix(e.Host, "unix://")})
	ask := func(method, path string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:"+door+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	fleet.Poll(t, "the door opens", func() error {
		if code := ask("GET", "/_ping"); code != http.StatusOK {
			return fmt.Errorf("%d", code)
		}
		return nil
	})
	for path, want := range map[string]int{
		"GET /v1.41/containers/json": 200, "GET /v1.41/containers/speaker/json": 200, "GET /v1.41/containers/speaker/logs?stdout=1": 200, "GET /v1.41/containers/nobody/json": 404,
		"POST /v1.41/containers/create": 403, "POST /v1.41/containers/speaker/start": 403, "DELETE /v1.41/containers/speaker": 403, "GET /v1.41/images/json": 403,
		"GET /v1.41/containers/speaker/archive?path=/": 403, "GET /v1.41/containers/speaker/export": 403, "POST /v1.41/containers/json": 403, "GET /v1.41/info": 403,
		"GET /v1.41/secrets": 403, "POST /build": 403, "GET /v1.41/containers/../info": 403, "GET /v1.41/containers/%2e%2e/info": 403, "GET /v1.41/containers/x%2f..%2f..%2finfo%3f/json": 403,
		"POST /v1.41/containers/speaker/exec": 403, "PUT /v1.41/containers/speaker/archive": 403,
	} {
		method, where, _ := strings.Cut(path, " ")
		if got := ask(method, where); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	// A node watches through it.
	redis := redistest.Start(t)
	n := fleet.Run(t, "node", binary(t, "node"), []string{"PORT=127.0.0.1:0", "PRIVATE_PORT=127.0.0.1:0", "NODE_ID=door", "REDIS_URL=" + redis.URL(), "TOKEN_SECRETS=" + fleet.Secret,
		"DOCKER_HOST=tcp://127.0.0.1:" + door, "DRAIN_GRACE=10ms", "DRAIN_WINDOW=10ms"})
	m := n.Await(`"node ready".*"public":"([^"]+)"`)
	got := watchLog(t, "ws://"+m[1]+"/connection/websocket", "docker:logs:speaker")
	for deadline := time.After(patience); ; {
		select {
		case data := <-got:
			if strings.Contains(data, "Usage: compose setup") {
				return
			}
		case <-deadline:
			t.Fatalf("no line of the container came through the door:\n%s", n.Tail())
		}
	}
}
