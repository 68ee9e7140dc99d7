// Package rules holds the project's shape: which folder may import which, and which library has which single home.
//
// docs/adr and the table of folders in README.md say why. A rule that has to change is changed here, in the same commit as its reason.
package rules

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Module is the name of ours.
const Module = "tideline/"

// mayImport says what of ours a folder may import, beside itself. Tests (_test.go) may import more.
var mayImport = map[string][]string{
	"shared":    {},
	"node":      {"shared"},
	"functions": {"shared"},
	"cdk":       {"shared"},
	"local":     {"shared", "node", "functions"},
	"test":      {"shared", "node", "functions", "cdk", "local"},
}

// homes says where a library may be imported: below one of the folders, or in a package whose folder is named like that ("*/name").
var homes = []struct {
	library string
	in      []string
	why     string
}{
	{"github.com/redis/go-redis/", []string{"shared/bus"}, "everything else speaks to the bus"},
	{"github.com/gorilla/websocket", []string{"node/conn"}, "one place knows the socket"},
	{"github.com/centrifugal/protocol", []string{"node/conn"}, "hub and feed know no wire protocol, so that another adapter is one package"},
	{"github.com/aws/aws-cdk-go/", []string{"cdk"}, "infrastructure is declared in one place"},
	{"github.com/aws/constructs-go/", []string{"cdk"}, "infrastructure is declared in one place"},
	{"github.com/aws/jsii-runtime-go", []string{"cdk"}, "infrastructure is declared in one place"},
	{"github.com/aws/aws-sdk-go-v2", []string{"*/dynamo", "*/s3files", "*/aws", "*/bootstrap", "test"},
		"only adapters, named after what they adapt, know AWS"},
	{"github.com/aws/aws-lambda-go", []string{"functions", "test"}, "nodes and stores don't know Lambda"},
	{"github.com/alicebob/miniredis/", []string{"local", "test"}, "the embedded Redis is for one process on one machine"},
	{"go.etcd.io/bbolt", []string{"local", "*/bolt", "test"}, "the embedded store is for one process on one machine"},
	{"github.com/danielgtaylor/huma/", []string{"functions"}, "REST is the functions' business"},
	{"go.opentelemetry.io/otel/sdk", []string{"shared/trace/otlp"}, "functions don't link what records"},
	{"go.opentelemetry.io/otel/exporters/", []string{"shared/trace/otlp"}, "functions don't link what records"},
	{"go.opentelemetry.io/", []string{"shared/trace", "test"}, "one place knows OpenTelemetry"},
	{"github.com/moby/", []string{"node/stream/docker", "test"}, "one place knows the Docker Engine: whoever has its socket has its host"},
	{"github.com/prometheus/", []string{"node", "functions", "local", "test"}, "shared packages count, their users export"},
}

// forbiddenNames say nothing about what a package is for.
var forbiddenNames = []string{"util", "utils", "helper", "helpers", "common", "types", "manager", "managers", "misc", "base", "lib"}

// Violations of the rules by one package: its import path, and what its files without tests import.
func Violations(pkg string, imports []string) []string {
	rel, ours := strings.CutPrefix(pkg, Module)
	if !ours {
		return []string{fmt.Sprintf("%s is not in module %s", pkg, Module)}
	}
	var found []string
	top, _, _ := strings.Cut(rel, "/")
	allowed, known := mayImport[top]
	if !known {
		found = append(found, fmt.Sprintf("%s: %s/ is not one of the project's folders", rel, top))
	}
	if name := path.Base(rel); slices.Contains(forbiddenNames, name) {
		found = append(found, fmt.Sprintf("%s: the name %q says nothing", rel, name))
	}
	for _, i := range imports {
		if other, ours := strings.CutPrefix(i, Module); ours {
			if folder, _, _ := strings.Cut(other, "/"); folder != top && !slices.Contains(allowed, folder) {
				found = append(found, fmt.Sprintf("%s imports %s: %s/ may import only itself and %s", rel, other, top, strings.Join(allowed, ", ")))
			}
			continue
		}
		for _, h := range homes {
			if strings.HasPrefix(i+"/", strings.TrimSuffix(h.library, "/")+"/") && !slices.ContainsFunc(h.in, func(home string) bool { return at(rel, home) }) {
				found = append(found, fmt.Sprintf("%s imports %s, which belongs in %s: %s", rel, i, strings.Join(h.in, ", "), h.why))
			}
		}
	}
	return found
}

// at reports whether a package is in a home.
func at(rel, home string) bool {
	if name, anywhere := strings.CutPrefix(home, "*/"); anywhere {
		return path.Base(rel) == name
	}
	return rel == home || strings.HasPrefix(rel, home+"/")
}
