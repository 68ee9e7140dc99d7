package main

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tideline/cdk/settings"
	"tideline/node/server"
)

// elsewhere are settings that nodes read and the stack never gives, each with the reason. A new setting of nodes belongs here, among settings.NodeLimits, or in
// cdk/edge.
var elsewhere = map[string]string{
	"NODE_ID": "the instance knows", "ZONE": "the instance knows",
	"TOKEN_SECRETS": "nodes verify with the key ring", "DOCKER_HOST": "there is no Docker on the instances", "DOCKER_CERT_PATH": "there is no Docker on the instances",
	"OTEL_TRACES_EXPORTER": "there is no collector in the stack", "OTEL_EXPORTER_OTLP_ENDPOINT": "there is no collector in the stack",
	"API_KEYS":            "keys come by API_KEYS_FILE: a secret has no place in user data",
	"COMMANDS_PER_SECOND": "no client that behaves needs another value", "SUBSCRIBES_PER_SECOND": "no client that behaves needs another value",
	"UNAUTHENTICATED": "a bound against floods that depends on the node's code", "HANDSHAKE_TIMEOUT": "as the SDKs expect it",
	"SHED_AGE": "goes with the affinity cookie, which the stack sets", "STAGE": "given",
}

// pending are settings that the stack gives to nodes and that the node does not read yet. The test fails when one of them is read, so that the
// list can only shrink.
var pending = []string{}

// byKey are settings that a deployer may set by a key of their own, and no variant does.
var byKey = []string{"LOG_LEVEL", "CHANNELS_FILE", "REDIS_IAM_SERVERLESS"}

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
		if m[1] != "SIGTERM" { // a line of prose
			known = append(known, m[1])
		}
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
	for _, name := range known {
		_, excused := elsewhere[name]
		offered := slices.ContainsFunc(settings.NodeLimits, func(l settings.NodeLimit) bool { return l.Setting == name })
		if !given[name] && !excused && !offered && !slices.Contains(byKey, name) {
			t.Errorf("nodes read %s, and the stack never gives it: offer it to the deployer, or say why not", name)
		}
	}
	for _, name := range pending {
		if slices.Contains(known, name) {
			t.Errorf("the node reads %s now: take it off the list", name)
		}
		if !given[name] {
			t.Errorf("%s is on the list, and no variant gives it", name)
		}
	}
}

// A value that the node would refuse must be refused before it is deployed: as user data it would make a fleet that can't start.
func TestBoundsOfNodeSettingsAreTheNodesOwn(t *testing.T) {
	starts := func(setting string, value int) bool {
		_, err := server.ParseConfig(func(name string) string {
			return map[string]string{"REDIS_URL": "redis://127.0.0.1:6379", "KEYS_TABLE": "keys", setting: strconv.Itoa(value)}[name]
		})
		return err == nil
	}
	parses := func(key string, value int) bool {
		_, err := settings.Parse(map[string]any{key: strconv.Itoa(value)}, "")
		return err == nil
	}
	for _, l := range settings.NodeLimits {
		for value, want := range map[int]bool{l.Least - 1: false, l.Least: true, l.Most: true, l.Most + 1: false} {
			if node, stack := starts(l.Setting, value), parses(l.Key, value); node != want || stack != want {
				t.Errorf("%s=%d: the node takes it: %v, %s: %v; want %v", l.Setting, value, node, l.Key, stack, want)
			}
		}
	}
	for _, setting := range []string{"COMPRESSION=on", "COMPRESSION=off", "LOG_LEVEL=debug", "LOG_LEVEL=error"} {
		name, value, _ := strings.Cut(setting, "=")
		if _, err := server.ParseConfig(func(n string) string {
			return map[string]string{"REDIS_URL": "redis://127.0.0.1:6379", "KEYS_TABLE": "keys", name: value}[n]
		}); err != nil {
			t.Errorf("%s: %v", setting, err)
		}
	}
}

func TestWhatADeployerSetsReachesTheNodes(t *testing.T) {
	data := userData(t, synth(t, "prod"))
	for _, line := range []string{"CONNECTIONS_PER_IP=20000", "COMPRESSION=on"} {
		if !strings.Contains(data, "\n"+line+"\n") {
			t.Errorf("no %s in the user data", line)
		}
	}
	if strings.Contains(data, "QUEUE_BYTES") {
		t.Error("a limit that was not set is given, and would hide the node's default")
	}
}
