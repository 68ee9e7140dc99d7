package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func env(pairs ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(k string) string { return m[k] }
}

func TestDefaults(t *testing.T) {
	s, err := parse(nil, env())
	if err != nil {
		t.Fatal(err)
	}
	if s.mode != wholeSystem || s.nodes != 2 || !s.sticky || s.redisURL != "" || s.data != ".tideline" || s.json ||
		strings.Join(s.listen, " ") != "127.0.0.1:8080 [::1]:8080" {
		t.Errorf("%+v", s)
	}
}

func TestSettings(t *testing.T) {
	s, err := parse([]string{"-balance", "http://a:1=http://a:2/readyz, http://b:1", "-api", "http://c:3"},
		env("PORT", "0.0.0.0:9999", "STICKY", "OFF", "NODES", "16", "LOG_FORMAT", "json", "LOG_LEVEL", "debug"))
	if err != nil {
		t.Fatal(err)
	}
	if s.mode != onlyBalancer || len(s.targets) != 2 || s.targets[0].Health.String() != "http://a:2/readyz" || s.targets[1].Health.String() != "http://b:1/" ||
		s.api.Host != "c:3" || s.sticky || s.nodes != 16 || !s.json || s.level != slog.LevelDebug || strings.Join(s.listen, " ") != "0.0.0.0:9999" {
		t.Errorf("%+v", s)
	}
}

func TestMistakesAreReportedByName(t *testing.T) {
	for _, c := range []struct{ args, name, value, says string }{
		{"", "PORT", "65536", "PORT"}, {"", "PORT", "x", "PORT"}, {"", "PORT", "a:b:c", "PORT"},
		{"", "NODES", "0", "1 to 16"}, {"", "NODES", "17", "1 to 16"}, {"", "NODES", "two", "1 to 16"},
		{"", "STICKY", "maybe", "on, off"}, {"", "LOG_LEVEL", "loud", "LOG_LEVEL"}, {"", "LOG_FORMAT", "xml", "LOG_FORMAT"},
		{"-balance localhost:8001", "", "", "-balance"}, {"-balance http://a:1=b", "", "", "-balance"}, {"-balance http://a:1,", "", "", "-balance"},
		{"-api http://a:1", "", "", "-api"}, {"-functions", "", "", "REDIS_URL"}, {"-functions -dev", "", "", "exclude"}, {"-balance http://a:1 -dev", "", "", "exclude"},
		{"now", "", "", "unexpected argument"}, {"-x", "", "", "-x"},
	} {
		if _, err := parse(strings.Fields(c.args), env(c.name, c.value)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s=%s: %v", c.args, c.name, c.value, err)
		}
	}
	_, err := parse(nil, env("PORT", "x", "NODES", "0", "STICKY", "maybe"))
	for _, name := range []string{"PORT", "NODES", "STICKY"} {
		if err == nil || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s is not in %v", name, err)
		}
	}
}

// A DOCKER_HOST that is meant for other programs does not keep the system from starting; one for nodes reaches them.
func TestDockerHost(t *testing.T) {
	for value, want := range map[string]string{"": "", "ssh://root@far": "", "tcp://far": "", "unix:///run/d.sock": "unix:///run/d.sock", "tcp://far:2375": "tcp://far:2375"} {
		s, err := parse(nil, env("DOCKER_HOST", value))
		if err != nil {
			t.Errorf("%q: %v", value, err)
		}
		e := everything{settings: s, log: slog.New(slog.DiscardHandler)}
		if got := e.engine(); got.host != want {
			t.Errorf("%q: nodes get %q, want %q", value, got.host, want)
		}
	}
}

func TestUsageNamesEverySetting(t *testing.T) {
	for _, name := range []string{"PORT", "NODES", "STICKY", "REDIS_URL", "STAGE", "TOKEN_SECRETS", "DATA_DIR", "DOCKER_HOST", "DOCKER_CERT_PATH", "LOG_LEVEL", "LOG_FORMAT", "-dev", "-balance", "-api", "-functions"} {
		if !strings.Contains(usage, "  "+name+" ") {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestATakenPortSaysWhatToDo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	folder := t.TempDir()
	err = run(t.Context(), nil, env("PORT", port, "DATA_DIR", folder), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "taken") || !strings.Contains(err.Error(), "PORT=") {
		t.Errorf("%v", err)
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 0 {
		t.Errorf("something had started: %v", entries)
	}
}

func TestSecretsAreMadeOnceAndPrivate(t *testing.T) {
	s := settings{data: filepath.Join(t.TempDir(), "data")}
	first, err := secretsSetting(s)
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimPrefix(first, "@")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	before, _ := os.ReadFile(path)
	second, err := secretsSetting(s)
	after, _ := os.ReadFile(path)
	if err != nil || second != first || !bytes.Equal(before, after) || len(bytes.TrimSpace(before)) != 64 {
		t.Errorf("%q then %q: %v", before, after, err)
	}
	if _, err := parseSecrets(first, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	if given, err := secretsSetting(settings{data: "/nowhere", secrets: "mine"}); err != nil || given != "mine" {
		t.Errorf("%q %v", given, err)
	}
	if _, err := secretsSetting(settings{data: path + "/below-a-file"}); err == nil || !strings.Contains(err.Error(), "DATA_DIR") {
		t.Errorf("%v", err)
	}
}

func TestAStoreInUseSaysSo(t *testing.T) {
	folder := t.TempDir()
	db, err := openStore(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := openStore(folder); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("%v", err)
	}
	if _, err := openStore("/dev/null/x"); err == nil || errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "DATA_DIR") {
		t.Errorf("%v", err)
	}
}

func TestEmbeddedRedisForgetsWhatExpires(t *testing.T) {
	r, err := startRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Set("k", "v")
	r.SetTTL("k", 20*time.Millisecond)
	deadline := time.Now().Add(30 * time.Second)
	for r.Exists("k") {
		if time.Now().After(deadline) {
			t.Fatal("a key with 20 ms to live is still there after 30 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestLogLines(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(&b, settings{level: slog.LevelInfo}, env())
	log.Debug("not shown")
	log.With("node", "node-1").Info("ready", "public", "127.0.0.1:1", "empty", "", "space", "a b")
	log.With("code", 3012).WithGroup("client").With("id", "x").Warn("gone", "node", "inner", slog.Group("from", "ip", "::1"), "error", errors.New("no \"pong\""))
	log.Error("forged\n12:00:00 node-9 line", "bytes", "\x1b[31mred")
	got := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	want := []string{
		` node-1    ready public=127.0.0.1:1 empty="" space="a b"`,
		`           WARN gone code=3012 client.id=x client.node=inner client.from.ip=::1 client.error="no \"pong\""`,
		`           ERROR forged` + "\uFFFD" + `12:00:00 node-9 line bytes="\x1b[31mred"`,
	}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i, w := range want {
		if _, err := time.Parse("15:04:05.000", got[i][:12]); err != nil || got[i][12:] != w {
			t.Errorf("%q, want %q", got[i][12:], w)
		}
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Error("colour although this is no terminal, or a client's bytes steer it")
	}
}

func TestLogColourIsOnlyPaint(t *testing.T) {
	var plainOut, colourOut bytes.Buffer
	for _, c := range []struct {
		colour bool
		out    *bytes.Buffer
	}{{false, &plainOut}, {true, &colourOut}} {
		h := &lines{colour: c.colour, out: &output{w: c.out}}
		r := slog.NewRecord(time.Unix(0, 0), slog.LevelWarn, "message", 0)
		r.Add("k", "v")
		if err := h.Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	stripped := colourOut.String()
	for _, code := range []string{dim, cyan, yellow, red, plain} {
		stripped = strings.ReplaceAll(stripped, code, "")
	}
	if stripped != plainOut.String() || stripped == colourOut.String() {
		t.Errorf("%q and %q", colourOut.String(), plainOut.String())
	}
}
