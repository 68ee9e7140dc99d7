package lambdatest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	sessiontable "tideline/functions/session/dynamo"
	"tideline/shared/token"
	keytable "tideline/shared/token/dynamo"
	"tideline/test/dynamotest"
	lambdatest "tideline/test/lambda"
)

// browser sends requests through the load balancer's eyes and keeps its cookie.
type browser struct {
	t      *testing.T
	f      *lambdatest.Function
	cookie string
}

type answer struct {
	lambdatest.Response
	User, Token, URL, Type string
}

func (b *browser) do(status int, method, path string) answer {
	b.t.Helper()
	r := lambdatest.Request(b.t, method, path, "")
	if b.cookie != "" {
		r.Header.Set("Cookie", b.cookie)
	}
	res := b.f.Invoke(lambdatest.ALB(b.t, r, true))
	if res.Error != nil {
		b.t.Fatalf("%s %s: %v\n%s", method, path, res.Error, b.f.Logs())
	}
	a := answer{Response: lambdatest.Decode(b.t, res.Payload, true)}
	if a.Status != status {
		b.t.Fatalf("%s %s: %d %s, want %d\n%s", method, path, a.Status, a.Body, status, b.f.Logs())
	}
	if strings.Contains(a.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(a.Body, &a); err != nil {
			b.t.Fatal(err)
		}
	}
	if set := a.Header.Get("Set-Cookie"); set != "" {
		b.cookie, _, _ = strings.Cut(set, ";")
	}
	return a
}

// The binaries that are deployed, on real tables: keys makes the rings, session signs with them, and this process verifies as a node does.
func TestSessionAndKeysBinaries(t *testing.T) {
	db := dynamotest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := sessiontable.CreateTable(ctx, db.Client(), "sessions"); err != nil {
		t.Fatal(err)
	}
	if err := keytable.CreateTable(ctx, db.Client(), "keys"); err != nil {
		t.Fatal(err)
	}
	env := append(db.Environment(), "KEYS_TABLE=keys", "SESSION_TABLE=sessions", "PUBLIC_SCHEME=https")
	keys := lambdatest.Deploy(t, lambdatest.Build(t, "tideline/functions/keys/bootstrap"), env...)
	f := lambdatest.Deploy(t, lambdatest.Build(t, "tideline/functions/session/bootstrap"), env...)

	one := &browser{t: t, f: f}
	if a := one.do(503, "POST", "/api/session"); a.Type != "urn:tideline:problem:unavailable" {
		t.Errorf("before there are keys: %s", a.Body)
	}
	for range 2 {
		if r := keys.Invoke(lambdatest.EventBridge(t, "1", "aws.events", "Scheduled Event", map[string]any{})); r.Error != nil {
			t.Fatalf("%v\n%s", r.Error, keys.Logs())
		}
	}
	f.Kill() // a new sandbox: the old one would read again only after token.ReloadEvery
	first := one.do(201, "POST", "/api/session")
	verifier := token.NewKeys(keytable.New(db.Client(), "keys"), nil, nil).Access()
	claims, err := verifier.Verify(ctx, first.Token)
	if err != nil || claims.User != first.User {
		t.Errorf("a node would see %+v, %v", claims, err)
	}
	link := one.do(201, "POST", "/api/session/link").URL
	path, ok := strings.CutPrefix(link, "https://app.example.org")
	if !ok {
		t.Fatalf("link %q", link)
	}
	two := &browser{t: t, f: f}
	if a := two.do(303, "GET", path); a.Header.Get("Location") != "/" || !strings.Contains(a.Header.Get("Set-Cookie"), "Secure") {
		t.Errorf("%v", a.Header)
	}
	if a := two.do(201, "POST", "/api/session"); a.User != first.User {
		t.Errorf("the second browser is %q", a.User)
	}
	if a := (&browser{t: t, f: f}).do(410, "GET", path); a.Type != "urn:tideline:problem:link-used" {
		t.Errorf("%s", a.Body)
	}
	two.do(204, "DELETE", "/api/session")
	one.do(200, "POST", "/api/session/token")
	logs := f.Logs()
	if !strings.Contains(logs, `"request_id":`) || !strings.Contains(logs, `"trace_id":`) || !strings.Contains(logs, `"request_latency_seconds"`) {
		t.Errorf("logs without ids or measurements:\n%s", logs)
	}
	if strings.Contains(logs, first.Token) || strings.Contains(logs, strings.TrimPrefix(one.cookie, "tideline_session=")) ||
		strings.Contains(logs, strings.TrimPrefix(path, "/api/session/link/")) {
		t.Error("a secret is in the log")
	}
}

// Without the Lambda runtime the same binary is an HTTP server that stops gracefully.
func TestTheSameBinaryServesHTTP(t *testing.T) {
	bin := lambdatest.Build(t, "tideline/functions/session/bootstrap")
	port, private := lambdatest.FreePort(t), lambdatest.FreePort(t)
	cmd := exec.CommandContext(t.Context(), bin)
	cmd.Env = []string{fmt.Sprint("PORT=", port), fmt.Sprint("PRIVATE_PORT=", private), "TOKEN_SECRETS=" + strings.Repeat("s", token.MinSecretBytes),
		"SESSION_DB=" + t.TempDir() + "/db"}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	send := func(ctx context.Context, method, url string) (int, string, error) {
		r, err := http.NewRequestWithContext(ctx, method, url, nil)
		if err != nil {
			return 0, "", err
		}
		res, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return res.StatusCode, string(b), err
	}
	lambdatest.Poll(t, func(ctx context.Context) error {
		status, body, err := send(ctx, "POST", fmt.Sprintf("http://127.0.0.1:%d/api/session", port))
		if err == nil && status != 201 {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	lambdatest.Poll(t, func(ctx context.Context) error { // a request is answered before it is counted
		status, body, err := send(ctx, "GET", fmt.Sprintf("http://127.0.0.1:%d/metrics", private))
		if err == nil && (status != 200 || !strings.Contains(body, `request_latency_seconds_count{function="session"} 1`)) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("stop: %v\n%s", err, out.String())
	}
}

func TestMistakesInTheEnvironmentAreNamedTogether(t *testing.T) {
	bin := lambdatest.Build(t, "tideline/functions/session/bootstrap")
	cmd := exec.CommandContext(t.Context(), bin)
	cmd.Env = []string{"LOG_LEVEL=loud", "PUBLIC_SCHEME=gopher", "GUESTS=maybe", "TOKEN_SECRETS=short"}
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("it started")
	}
	for _, name := range []string{"LOG_LEVEL", "PUBLIC_SCHEME", "GUESTS", "TOKEN_SECRETS", "SESSION_TABLE"} {
		if !strings.Contains(string(out), name) {
			t.Errorf("%s is not named in: %s", name, out)
		}
	}
}
