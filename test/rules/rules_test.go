package rules

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// goPackage is what `go list -json` tells.
type goPackage struct {
	ImportPath, Dir, Name string
	GoFiles               []string
	TestGoFiles           []string
	XTestGoFiles          []string
	Imports, Deps         []string
}

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Dir,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,Deps"}, args...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatalf("go list %v found no package", args)
	}
	return all
}

func TestImports(t *testing.T) {
	packages := list(t, "./...")
	if len(packages) < 10 {
		t.Fatalf("only %d packages: the walk is broken", len(packages))
	}
	for _, p := range packages {
		for _, v := range Violations(p.ImportPath, p.Imports) {
			t.Error(v)
		}
	}
}

// The rules themselves: each would catch what it is for, and lets through what it must.
func TestRulesCatch(t *testing.T) {
	for _, c := range []struct {
		pkg, imports, says string
	}{
		{"tideline/shared/bus", "tideline/node/hub", "may import only itself"},
		{"tideline/shared/bus", "tideline/shared/limit", ""},
		{"tideline/node/conn", "tideline/functions/api", "may import only itself"},
		{"tideline/functions/todos", "tideline/node/server", "may import only itself"},
		{"tideline/functions/todos", "tideline/functions/api", ""},
		{"tideline/cdk", "tideline/functions/todos", "may import only itself"},
		{"tideline/node/server", "tideline/local/balancer", "may import only itself"},
		{"tideline/node/server", "tideline/test/redistest", "may import only itself"},
		{"tideline/local", "tideline/node/server", ""},
		{"tideline/local", "tideline/test/redistest", "may import only itself"},
		{"tideline/test/e2e", "tideline/local", ""},
		{"tideline/web/server", "fmt", "not one of the project's folders"},
		{"tideline/shared/util", "fmt", "says nothing"},
		{"tideline/node/hub", "github.com/redis/go-redis/v9", "shared/bus"},
		{"tideline/shared/bus", "github.com/redis/go-redis/v9", ""},
		{"tideline/shared/business", "github.com/redis/go-redis/v9", "shared/bus"},
		{"tideline/node/hub", "github.com/gorilla/websocket", "node/conn"},
		{"tideline/node/hub", "github.com/centrifugal/protocol", "node/conn"},
		{"tideline/node/drain", "github.com/aws/aws-sdk-go-v2/config", "adapters"},
		{"tideline/shared/todo/dynamo", "github.com/aws/aws-sdk-go-v2/service/dynamodb", ""},
		{"tideline/functions/todos", "github.com/aws/aws-sdk-go-v2/service/dynamodb", "adapters"},
		{"tideline/functions/todos", "github.com/aws/aws-cdk-go/awscdk/v2", "cdk"},
		{"tideline/cdk/edge", "github.com/aws/aws-cdk-go/awscdk/v2/awsec2", ""},
		{"tideline/node/server", "github.com/alicebob/miniredis/v2", "embedded Redis"},
		{"tideline/shared/todo", "go.etcd.io/bbolt", "embedded store"},
		{"tideline/shared/todo/bolt", "go.etcd.io/bbolt", ""},
		{"tideline/node/server", "github.com/moby/moby/client", "node/stream/docker"},
		{"tideline/local", "github.com/moby/moby/api/types/container", "node/stream/docker"},
		{"tideline/node/stream/docker", "github.com/moby/moby/client", ""},
		{"tideline/node/stream/dockerfile", "github.com/moby/moby/client", "node/stream/docker"},
		{"tideline/test/enginetest", "github.com/moby/moby/client", ""},
		{"tideline/shared/bus", "github.com/prometheus/client_golang/prometheus", "export"},
		{"tideline/shared/trace", "go.opentelemetry.io/otel/sdk/trace", "shared/trace/otlp"},
		{"tideline/shared/trace/otlp", "go.opentelemetry.io/otel/sdk/trace", ""},
		{"tideline/node/hub", "go.opentelemetry.io/otel/trace", "shared/trace"},
		{"other/pkg", "fmt", "not in module"},
	} {
		got := strings.Join(Violations(c.pkg, []string{c.imports}), "; ")
		if (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s importing %s: %q, want %q", c.pkg, c.imports, got, c.says)
		}
	}
}

// What a binary links decides its size, its start and what can be attacked in it.
func TestBinariesLinkOnlyWhatTheyNeed(t *testing.T) {
	forbidden := map[string][]string{
		"./node": {"go.etcd.io/bbolt", "github.com/alicebob/miniredis/", "github.com/danielgtaylor/huma/", "github.com/aws/aws-cdk-go/", "github.com/aws/aws-lambda-go/", "testing"},
	}
	bootstraps, err := filepath.Glob(root + "/functions/*/bootstrap")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bootstraps {
		if mains, _ := filepath.Glob(b + "/*.go"); len(mains) > 0 {
			rel, err := filepath.Rel(root, b)
			if err != nil {
				t.Fatal(err)
			}
			forbidden["./"+rel] = []string{"github.com/gorilla/websocket", "github.com/alicebob/miniredis/", "github.com/aws/aws-cdk-go/",
				"go.opentelemetry.io/otel/sdk/", "google.golang.org/grpc/", "testing"}
		}
	}
	for binary, libraries := range forbidden {
		for _, p := range list(t, binary) {
			for _, dep := range p.Deps {
				for _, library := range libraries {
					if dep == library || strings.HasPrefix(dep, strings.TrimSuffix(library, "/")+"/") && library != "testing" {
						t.Errorf("%s links %s", binary, dep)
					}
				}
			}
		}
	}
}

var firstSentence = regexp.MustCompile(`^(Package|Command) (\w+) [^\n]*(\n[^\n]+)*`)

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "./...") {
		files := p.GoFiles
		if len(files) == 0 { // a folder of tests only
			files = append(p.TestGoFiles, p.XTestGoFiles...)
		}
		var comments []string
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				comments = append(comments, f.Doc.Text())
			}
		}
		if len(comments) != 1 {
			t.Errorf("%s has %d package comments, want one", p.ImportPath, len(comments))
			continue
		}
		m := firstSentence.FindStringSubmatch(comments[0])
		name := strings.TrimSuffix(p.Name, "_test")
		if m == nil || m[1] == "Package" && m[2] != name || m[1] == "Command" && p.Name != "main" || !strings.Contains(m[0], ".") && !strings.Contains(m[0], ":") {
			t.Errorf("%s: the package comment begins %.60q, want a sentence about package %s", p.ImportPath, comments[0], name)
		}
	}
}

// The folders and files at the top are those of the table in the README; another needs an ADR.
func TestTopLevel(t *testing.T) {
	cmd := exec.Command("git", "ls-files")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	allowed := []string{"cdk", "functions", "node", "shared", "local", "web", "test", "docs", "scripts", ".ci", ".github",
		"cdk.json", "package.json", "go.mod", "go.sum", "Makefile", "README.md", "compose.yaml", "Dockerfile", ".dockerignore", "CHANGELOG.md", "LICENSE", "SECURITY.md", ".gitignore", ".gitattributes"}
	tops := map[string]bool{}
	for path := range strings.Lines(string(out)) {
		top, _, _ := strings.Cut(strings.TrimSpace(path), "/")
		tops[top] = true
	}
	if len(tops) < 5 {
		t.Fatalf("git lists only %v", tops)
	}
	for top := range tops {
		if !slices.Contains(allowed, top) {
			t.Errorf("%s is not in the table of folders", top)
		}
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"cdk", "functions", "node", "shared", "local", "web", "test", "docs", "scripts"} {
		if !strings.Contains(string(readme), "`"+folder+"/`") {
			t.Errorf("the README's table has no `%s/`", folder)
		}
	}
	if lines := strings.Count(string(readme), "\n"); lines >= 200 {
		t.Errorf("the README has %d lines, under 200 are wanted", lines)
	}
}
