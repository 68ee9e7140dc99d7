package server

import (
	"context"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
)

// prometheusNames reads the names of a node's metrics from the source of shared/metric: the first block of constants.
func prometheusNames(t *testing.T) []string {
	t.Helper()
	file, err := goparser.ParseFile(token.NewFileSet(), "../../shared/metric/metric.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		block, ok := d.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		var names []string
		for _, s := range block.Specs {
			name, err := strconv.Unquote(s.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return names
	}
	t.Fatal("shared/metric has no constants")
	return nil
}

// What is named is emitted, and what is emitted is named and explained. A metric with labels that nothing has happened to yet is only
// there by name: those are looked up in the page of a node that has served a request.
func TestEveryNamedMetricIsEmittedAndExplained(t *testing.T) {
	redis := miniredis.RunT(t)
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	public, private := listen(), listen()
	n, err := Open(t.Context(), Config{NodeID: "n1", Stage: "test", RedisURL: "redis://" + redis.Addr(), TokenSecrets: strings.Repeat("x", 32), Scheme: "http",
		DockerHost: "unix:///nowhere/docker.sock"},
		public, private, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	await(t, "ready", func() bool { return n.State() == Ready })
	get(t, "http://"+public.Addr().String()+"/")
	_, page := get(t, "http://"+private.Addr().String()+"/metrics")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	docs, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	names := prometheusNames(t)
	if len(names) < 20 {
		t.Fatalf("only %d names found", len(names))
	}
	// Vectors show no series before their first event.
	quiet := map[string]bool{"websocket_messages_sent_total": true, "websocket_message_latency_seconds": true, "websocket_disconnects_total": true,
		"websocket_command_errors_total": true, "bus_publications_total": true}
	for _, name := range names {
		if !quiet[name] && !strings.Contains(page, "\n# TYPE "+name+" ") {
			t.Errorf("%s is named and not emitted", name)
		}
		if !strings.Contains(string(docs), "`"+name+"`") {
			t.Errorf("docs/operations.md does not explain %s", name)
		}
	}
	for line := range strings.Lines(page) {
		name, ok := strings.CutPrefix(line, "# TYPE ")
		if name, _, _ = strings.Cut(name, " "); !ok || strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "promhttp_") {
			continue
		}
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known {
			t.Errorf("%s is emitted and not named in shared/metric", name)
		}
	}
}
