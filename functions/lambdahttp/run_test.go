package lambdahttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tideline/shared/metric"
	"tideline/test/leak"
	"tideline/test/port"
)

func TestMain(m *testing.M) { leak.Main(m) }

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// freePorts are different ones.
func freePorts(t *testing.T, n int) (out []string) {
	t.Helper()
	for len(out) < n {
		if p := port.Free(t); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// running is a function on ports; stop ends it and answers Run's error.
func running(t *testing.T, f Function) (client *http.Client, public, private string, stop func() error) {
	t.Helper()
	ports := freePorts(t, 2)
	p, err := start("test", env("PORT", ports[0], "PRIVATE_PORT", ports[1]), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p.Meter.Add(metric.TasksCreated, 3)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, f) }()
	client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		res, err := client.Get("http://127.0.0.1:" + ports[1] + "/healthz")
		if err == nil {
			_ = res.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	var once bool
	stop = func() error {
		if once {
			return nil
		}
		once = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(stopTimeout + 20*time.Second):
			return errors.New("did not stop")
		}
	}
	t.Cleanup(func() { _ = stop() })
	return client, "http://127.0.0.1:" + ports[0], "http://127.0.0.1:" + ports[1], stop
}

func send(t *testing.T, c *http.Client, method, url string, body io.Reader) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

func TestEventsOnAPort(t *testing.T) {
	c, public, _, stop := running(t, Function{Event: func(_ context.Context, raw json.RawMessage) (any, error) {
		if string(raw) == `"fail"` {
			return nil, errors.New("told to")
		}
		return len(raw), nil
	}})
	for name, tc := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"an event":     {`{"a":1}`, 200, "7"},
		"a failure":    {`"fail"`, 200, `"errorMessage":"told to"`},
		"not JSON":     {`{`, 400, "invalid-request"},
		"at the limit": {`"` + strings.Repeat("x", invokeBytes-2) + `"`, 200, fmt.Sprint(invokeBytes)},
		"one past it":  {`"` + strings.Repeat("x", invokeBytes-1) + `"`, 413, "body-too-large"},
	} {
		status, h, body := send(t, c, "POST", public+InvokePath, strings.NewReader(tc.body))
		if status != tc.status || !strings.Contains(body, tc.want) || (h.Get("X-Amz-Function-Error") != "") != (name == "a failure") {
			t.Errorf("%s: %d %v %.200s", name, status, h, body)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestAFunctionWithBothTakesEventsOnThePrivatePortOnly(t *testing.T) {
	web := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	c, public, private, _ := running(t, Function{HTTP: web, Event: func(context.Context, json.RawMessage) (any, error) { return "event", nil }})
	if status, _, _ := send(t, c, "POST", public+InvokePath, strings.NewReader("{}")); status != http.StatusTeapot {
		t.Errorf("the public port took an event: %d", status)
	}
	if status, _, body := send(t, c, "POST", private+InvokePath, strings.NewReader("{}")); status != 200 || body != `"event"` {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := send(t, c, "GET", private+"/metrics", nil); status != 200 || !strings.Contains(body, `tasks_created_total{function="test"} 3`) {
		t.Errorf("%d %s", status, body)
	}
}

func TestRunningRequestsEndBeforeTheProcessDoes(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	c, public, _, stop := running(t, Function{HTTP: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		_, _ = w.Write([]byte("whole"))
	})})
	got := make(chan string, 1)
	go func() {
		res, err := c.Get(public)
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		got <- string(b)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// New connections are refused once the stop has begun; only then may the handler go on.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(public, "http://"), time.Second)
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Error("still takes connections")
			break
		}
	}
	close(leave)
	if body := <-got; body != "whole" {
		t.Errorf("the running request got %q", body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestPortsThatCannotBeUsedAreNamed(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, free := fmt.Sprint(l.Addr().(*net.TCPAddr).Port), freePorts(t, 1)[0]
	for _, tc := range []struct{ public, private, want string }{{taken, "", "PORT: "}, {"70000", "", "PORT: "}, {"http", "", "PORT: "},
		{free, taken, "PRIVATE_PORT: "}, {free, "-1", "PRIVATE_PORT: "}} {
		p, err := start("test", env("PORT", tc.public, "PRIVATE_PORT", tc.private), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err = p.Run(ctx, Function{HTTP: http.NotFoundHandler()})
		cancel()
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

func TestLogLevel(t *testing.T) {
	if _, err := start("test", env("LOG_LEVEL", "loud"), io.Discard); err == nil || !strings.Contains(err.Error(), "LOG_LEVEL") {
		t.Errorf("%v", err)
	}
	var b bytes.Buffer
	p, err := start("test", env("LOG_LEVEL", "warn"), &b)
	if err != nil {
		t.Fatal(err)
	}
	p.Log.Info("quiet")
	p.Log.Warn("loud", slog.String("a", "b"))
	if s := b.String(); strings.Contains(s, "quiet") || !strings.Contains(s, `"function":"test"`) {
		t.Error(s)
	}
}

// A stage's dashboard shows its own namespace: with another one its functions would look as if they measured nothing.
func TestMeasurementsInLambdaCarryTheStage(t *testing.T) {
	for stage, want := range map[string]string{"prod": metric.Namespace("prod"), "": metric.Namespace("dev")} {
		var out bytes.Buffer
		p, err := start("todos", env("AWS_LAMBDA_RUNTIME_API", "localhost", "STAGE", stage), &out)
		if err != nil {
			t.Fatal(err)
		}
		p.Meter.Add(metric.PublishFailures, 1)
		if err := p.done(); err != nil || !strings.Contains(out.String(), `"Namespace":"`+want+`"`) {
			t.Errorf("stage %q: %v, %s", stage, err, &out)
		}
	}
}
