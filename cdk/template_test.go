package main

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
)

// template is a CloudFormation template, as far as tests look at it.
type template struct {
	Parameters map[string]map[string]any
	Resources  map[string]resource
	Outputs    map[string]map[string]any
}

type resource struct {
	ID                                  string `json:"-"`
	Type                                string
	Properties                          map[string]any
	DependsOn                           any
	UpdatePolicy                        map[string]any
	DeletionPolicy, UpdateReplacePolicy string
}

// all lists the resources of a type, in the order of their ids. None is an error: a property of nothing would always hold.
func (tm template) all(t *testing.T, kind string) []resource {
	t.Helper()
	found := tm.maybe(kind)
	if len(found) == 0 {
		t.Fatalf("no %s in the template", kind)
	}
	return found
}

func (tm template) maybe(kind string) []resource {
	var found []resource
	for _, id := range slices.Sorted(maps.Keys(tm.Resources)) {
		if r := tm.Resources[id]; r.Type == kind {
			r.ID = id
			found = append(found, r)
		}
	}
	return found
}

// one is the resource of a type whose id begins with prefix; the CDK ends ids with a hash.
func (tm template) one(t *testing.T, kind, prefix string) resource {
	t.Helper()
	var found []resource
	for _, r := range tm.all(t, kind) {
		if rest, ok := strings.CutPrefix(r.ID, prefix); ok && len(rest) <= 8 {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d of %s %s…", len(found), kind, prefix)
	}
	return found[0]
}

// at follows a path of keys and indexes ("A.B.0.C") through maps and lists; nil where it ends.
func at(v any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			i := -1
			if _, err := fmt.Sscan(key, &i); err != nil || i < 0 || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func (r resource) get(path string) any { return at(r.Properties, path) }

// want checks one property, numbers and booleans by their JSON.
func (r resource) want(t *testing.T, path string, want any) {
	t.Helper()
	if got := r.get(path); plain(got) != plain(want) {
		t.Errorf("%s %s: %s is %s, want %s", r.Type, r.ID, path, plain(got), plain(want))
	}
}

func plain(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// mentions tells whether a value refers to a logical id that begins with prefix.
func mentions(v any, prefix string) bool {
	for s := range leaves(v) {
		if strings.HasPrefix(s, prefix) || strings.Contains(s, "${"+prefix) {
			return true
		}
	}
	return false
}

// leaves yields every string in a value, keys left out.
func leaves(v any) iter.Seq[string] {
	return func(yield func(string) bool) { walk(v, yield) }
}

func walk(v any, yield func(string) bool) bool {
	switch x := v.(type) {
	case string:
		return yield(x)
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(x)) {
			if !walk(x[k], yield) {
				return false
			}
		}
	case []any:
		for _, e := range x {
			if !walk(e, yield) {
				return false
			}
		}
	}
	return true
}

// texts is a list of strings, or one string as a list, as IAM writes both.
func texts(v any) []string {
	switch x := v.(type) {
	case string:
		return []string{x}
	case []any:
		var out []string
		for _, e := range x {
			if s, ok := e.(string); ok {
				out = append(out, s)
			} else {
				out = append(out, plain(e))
			}
		}
		return out
	case nil:
		return nil
	}
	return []string{plain(v)}
}

// statement of a policy, and the resource that holds it.
type statement struct {
	holder resource
	body   map[string]any
}

// statements of every identity policy: inline ones, roles' own, managed ones.
func (tm template) statements(t *testing.T) []statement {
	t.Helper()
	var out []statement
	add := func(r resource, document any) {
		list, ok := at(document, "Statement").([]any)
		if !ok {
			t.Fatalf("%s has no statements", r.ID)
		}
		for _, s := range list {
			out = append(out, statement{r, s.(map[string]any)})
		}
	}
	for _, r := range slices.Concat(tm.all(t, "AWS::IAM::Policy"), tm.all(t, "AWS::IAM::ManagedPolicy")) {
		add(r, r.get("PolicyDocument"))
	}
	for _, r := range tm.all(t, "AWS::IAM::Role") {
		policies, _ := r.get("Policies").([]any)
		for _, p := range policies {
			add(r, at(p, "PolicyDocument"))
		}
	}
	return out
}

// everywhere runs a test for each variant, or for those named.
func everywhere(t *testing.T, test func(t *testing.T, tm template), names ...string) {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(variants))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) { test(t, synth(t, name)) })
	}
}
