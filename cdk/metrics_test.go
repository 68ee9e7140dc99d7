package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tideline/shared/metric"
)

// emitted are the metrics of shared/metric that go to CloudWatch, by name, and the functions that measure.
type emitted struct{ metrics, functions map[string]bool }

// readCode finds what the code emits in its source: selectors of shared/metric's constants, and the names that commands start under. Nodes send
// to CloudWatch what is called Cloud…; all others of theirs are Prometheus's.
func readCode(t *testing.T) emitted {
	t.Helper()
	constants := map[string]string{}
	out := emitted{map[string]bool{}, map[string]bool{}}
	eachFile(t, filepath.Join("..", "shared", "metric"), func(f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
				if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
					constants[spec.Names[0].Name], _ = strconv.Unquote(literal.Value)
				}
			}
			return true
		})
	})
	read := func(f *ast.File, prefix string) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.SelectorExpr:
				if of, ok := x.X.(*ast.Ident); ok && of.Name == "metric" && strings.HasPrefix(x.Sel.Name, prefix) && constants[x.Sel.Name] != "" {
					out.metrics[constants[x.Sel.Name]] = true
				}
			case *ast.CallExpr:
				if start, ok := x.Fun.(*ast.SelectorExpr); ok && start.Sel.Name == "Start" && len(x.Args) == 2 {
					if name, ok := x.Args[0].(*ast.BasicLit); ok && name.Kind == token.STRING {
						unquoted, _ := strconv.Unquote(name.Value)
						out.functions[unquoted] = true
					}
				}
			}
			return true
		})
	}
	eachFile(t, filepath.Join("..", "node"), func(f *ast.File) { read(f, "Cloud") })
	eachFile(t, filepath.Join("..", "functions"), func(f *ast.File) { read(f, "") })
	if len(out.metrics) < 15 || len(out.functions) < 5 {
		t.Fatalf("the code was not read: %v", out)
	}
	return out
}

func eachFile(t *testing.T, root string, read func(*ast.File)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err == nil {
			read(f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var drawn = regexp.MustCompile(`\["(Tideline[^"]*)","([A-Za-z_]+)"(?:,"([A-Za-z]+)","([A-Za-z0-9]+)")?`)

// A widget, an alarm or a policy that names another metric or namespace than the code writes would stay empty for ever.
func TestWhatIsDrawnAndWatchedIsWhatTheCodeEmits(t *testing.T) {
	code := readCode(t)
	everywhere(t, func(t *testing.T, tm template) {
		namespace := ""
		check := func(where, space, name string) {
			t.Helper()
			if space != namespace {
				t.Errorf("%s: %s is not in %s, where the code writes", where, space, namespace)
			}
			if !code.metrics[name] {
				t.Errorf("%s: nobody emits %s", where, name)
			}
		}
		for _, f := range tm.all(t, "AWS::Lambda::Function") {
			if stage, ok := f.get("Environment.Variables.STAGE").(string); ok {
				namespace = metric.Namespace(stage)
			}
		}
		if !strings.Contains(userData(t, tm), "\nMETRICS_NAMESPACE="+namespace+"\n") {
			t.Errorf("nodes don't write to %s", namespace)
		}
		seen := map[string]bool{}
		for _, m := range drawn.FindAllStringSubmatch(dashboard(t, tm), -1) {
			seen[m[2]] = true
			check("widget", m[1], m[2])
			switch m[3] {
			case metric.DimensionFunction:
				if !code.functions[m[4]] {
					t.Errorf("no function measures as %s", m[4])
				}
			case "", metric.DimensionGroup:
			default:
				t.Errorf("%s: nobody sends the dimension %s", m[2], m[3])
			}
		}
		for _, name := range []string{metric.CloudConnections, metric.CloudLatency, metric.CloudGaps, metric.PublishFailures, metric.RequestLatency} {
			if !seen[name] {
				t.Errorf("no widget shows %s", name)
			}
		}
		for _, a := range tm.all(t, "AWS::CloudWatch::Alarm") {
			if space, _ := a.get("Namespace").(string); strings.HasPrefix(space, "Tideline") {
				check(a.ID, space, a.get("MetricName").(string))
			}
		}
		custom := tm.one(t, "AWS::AutoScaling::ScalingPolicy", "EdgeConnectionsPolicy").get("TargetTrackingConfiguration.CustomizedMetricSpecification")
		check("scaling policy", at(custom, "Namespace").(string), at(custom, "MetricName").(string))
	})
}
