package main

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tideline/node/server"
)

// pending are settings that the stack gives to nodes and that the node does not read yet. The test fails when one of them is read, so that the
// list can only shrink.
var pending = []string{}

// bySDK is read by AWS's SDK itself.
const bySDK = "AWS_REGION"

// A setting with another name than the node reads would be ignored in silence.
func TestNodesAreToldWhatTheyRead(t *testing.T) {
	var help bytes.Buffer
	if err := server.Main(context.Background(), []string{"--help"}, func(string) string { return "" }, &help, &help); err != nil {
		t.Fatalf("--help: %v\n%s", err, &help)
	}
	var known []string
	for _, m := range regexp.MustCompile(`(?m)^\s*([A-Z][A-Z_]+)\b`).FindAllStringSubmatch(help.String(), -1) {
		known = append(known, m[1])
	}
	if len(known) < 10 {
		t.Fatalf("settings %v in\n%s", known, &help)
	}
	given := map[string]bool{}
	everywhere(t, func(t *testing.T, tm template) {
		_, env, _ := strings.Cut(userData(t, tm), "<<'ENV'\n")
		env, _, _ = strings.Cut(env, "\nENV\n")
		for line := range strings.Lines(env) {
			name, _, ok := strings.Cut(line, "=")
			if !ok {
				continue
			}
			given[name] = true
			if !slices.Contains(known, name) && !slices.Contains(pending, name) && name != bySDK {
				t.Errorf("the node does not read %s", name)
			}
		}
	})
	for _, name := range pending {
		if slices.Contains(known, name) {
			t.Errorf("the node reads %s now: take it off the list", name)
		}
		if !given[name] {
			t.Errorf("%s is on the list, and no variant gives it", name)
		}
	}
}
