package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tideline/shared/metric"
	"tideline/shared/todo"
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
				if of, ok := x.X.(*ast.Ident); ok && of.Name == "metric" && strings.HasPrefix(x.Sel.Name, prefix) && !strings.HasPrefix(x.Sel.Name, "Dimension") && constants[x.Sel.Name] != "" {
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
	eachFile(t, "operate", func(f *ast.File) { read(f, "Cloud") })
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

// sent is a metric that a widget, an alarm or a policy names: where it is named, and its namespace, name and dimensions.
type sent struct {
	where, namespace, name string
	dimensions             map[string]string
}

// named lists every metric of our own that the template names.
func named(t *testing.T, tm template) []sent {
	t.Helper()
	var all []sent
	add := func(where string, namespace, name any, dimensions map[string]string) {
		if space, _ := namespace.(string); strings.HasPrefix(space, "Tideline") {
			all = append(all, sent{where, space, fmt.Sprint(name), dimensions})
		}
	}
	for _, w := range dashboard(t, tm).Widgets {
		for _, m := range w.Properties.Metrics {
			dimensions := map[string]string{}
			for i := 2; i+1 < len(m); i += 2 {
				dimensions[fmt.Sprint(m[i])] = fmt.Sprint(m[i+1])
			}
			if len(m) > 1 {
				add("widget "+w.Properties.Title, m[0], m[1], dimensions)
			}
		}
	}
	listed := func(v any) map[string]string {
		dimensions := map[string]string{}
		list, _ := v.([]any)
		for _, d := range list {
			dimensions[fmt.Sprint(at(d, "Name"))] = fmt.Sprint(at(d, "Value"))
		}
		return dimensions
	}
	for _, a := range tm.all(t, "AWS::CloudWatch::Alarm") {
		add(a.ID, a.get("Namespace"), a.get("MetricName"), listed(a.get("Dimensions")))
		queries, _ := a.get("Metrics").([]any)
		for _, q := range queries {
			m := at(q, "MetricStat.Metric")
			add(a.ID, at(m, "Namespace"), at(m, "MetricName"), listed(at(m, "Dimensions")))
		}
	}
	for _, p := range tm.all(t, "AWS::AutoScaling::ScalingPolicy") {
		custom := p.get("TargetTrackingConfiguration.CustomizedMetricSpecification")
		add(p.ID, at(custom, "Namespace"), at(custom, "MetricName"), listed(at(custom, "Dimensions")))
	}
	return all
}

// ofTheApp are measured by the todo application's functions alone.
var ofTheApp = []string{metric.TasksCreated, metric.TasksCompleted, metric.TasksFailed}

// Both ways. What is named is emitted: a widget, an alarm or a policy with another metric, namespace or dimension would stay empty for ever. What is emitted is
// named: a figure that nobody looks at costs money by the month.
func TestWhatIsDrawnAndWatchedIsWhatTheCodeEmits(t *testing.T) {
	code := readCode(t)
	everywhere(t, func(t *testing.T, tm template) {
		namespace := ""
		for _, f := range tm.all(t, "AWS::Lambda::Function") {
			if stage, ok := f.get("Environment.Variables.STAGE").(string); ok {
				namespace = metric.Namespace(stage)
			}
		}
		if !strings.Contains(userData(t, tm), "\nMETRICS_NAMESPACE="+namespace+"\n") {
			t.Errorf("nodes don't write to %s", namespace)
		}
		seen := map[string]bool{}
		for _, m := range named(t, tm) {
			seen[m.name] = true
			if m.namespace != namespace {
				t.Errorf("%s: %s is not in %s, where the code writes", m.where, m.namespace, namespace)
			}
			if !code.metrics[m.name] {
				t.Errorf("%s: nobody emits %s", m.where, m.name)
			}
			for name, value := range m.dimensions {
				switch {
				case name == metric.DimensionFunction && code.functions[value]:
				case name == metric.DimensionGroup && m.name == metric.CloudConnections:
				case name == "kind" && slices.Contains(ofTheApp, m.name) && (value == string(todo.Import) || value == string(todo.Export)):
				default:
					t.Errorf("%s: nobody sends %s with %s=%s", m.where, m.name, name, value)
				}
			}
		}
		for name := range code.metrics {
			if !seen[name] && (tm.Outputs["TodoTable"] != nil || !slices.Contains(ofTheApp, name)) {
				t.Errorf("%s is emitted, and no widget shows it and no alarm watches it", name)
			}
		}
	})
}
