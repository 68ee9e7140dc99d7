package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/edge"
	"tideline/cdk/settings"
)

// variants of the deployment that every property is checked on: their context, as a person would type it.
var variants = map[string]map[string]any{
	"dev": {},
	"prod": {"stage": "prod", "auth": "oidc", "oidcIssuer": "https://issuer.example.com", "oidcAudience": "tideline", "alarmEmail": "ops@example.com",
		"logGroups": "own", "connectionsPerIp": "20000", "compression": "on"},
	"alb": {"stage": "alb", "edge": "alb", "domainName": "live.example.com", "zones": "eu-central-1a,eu-central-1b,eu-central-1c", "shell": "true",
		"certificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/0a1b2c3d-0000-0000-0000-000000000000", "engine": "redis", "cache": "cluster",
		"nodeInstanceType": "c7i.large", "webAclArn": "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/guard/0a1b2c3d", "serverApiSecurityGroup": "sg-0123456789abcdef0"},
	"serverless": {"stage": "sls", "cache": "serverless", "auth": "oidc", "cognito": "true", "app": "none"},
	"existing": {"stage": "old", "vpcId": "vpc-0123456789abcdef0", "zones": "eu-central-1a,eu-central-1b",
		"subnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1", "redisUrl": "rediss://bus.example.com:6390",
		"logGroups": "/billing/api,/aws/lambda/shop-*", "serverApiSecurityGroup": "sg-0123456789abcdef0",
		"tableName": "kept", "tableStreamArn": "arn:aws:dynamodb:eu-central-1:123456789012:table/kept/stream/2026-11-01T00:00:00.000"},
}

const testRegion = "eu-central-1"

// synthesised is a variant's template and the folder that holds the cloud assembly.
type synthesised struct {
	template template
	dir      string
}

var (
	synthesis sync.Mutex
	templates = map[string]synthesised{}
	workDir   string
)

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	dir, err := os.MkdirTemp("", "tideline-cdk-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	workDir = dir
	// The checks of scripts/test-templates.sh read the assemblies from here, so that nothing is synthesised twice.
	if keep := os.Getenv("TIDELINE_TEMPLATES"); keep != "" {
		workDir = keep
	} else {
		defer os.RemoveAll(dir)
	}
	defer jsii.Close()
	code = m.Run()
}

// synth makes a variant's template, once for all tests.
func synth(t *testing.T, name string) template {
	t.Helper()
	synthesis.Lock()
	defer synthesis.Unlock()
	if s, ok := templates[name]; ok {
		return s.template
	}
	tmpl, dir := synthWith(t, name, variants[name], testRegion)
	templates[name] = synthesised{tmpl, dir}
	return tmpl
}

// synthWith declares the stack as main does, with placeholder builds, and CDK's own validation as errors.
func synthWith(t *testing.T, name string, context map[string]any, region string) (template, string) {
	t.Helper()
	s, err := settings.Parse(context, settings.Region(region))
	if err != nil {
		t.Fatalf("settings of %s: %v", name, err)
	}
	s.Version = "test"
	all := cdkContext(t)
	for k, v := range context {
		all[k] = v
	}
	dir := filepath.Join(workDir, name)
	if _, ok := variants[name]; !ok {
		dir = t.TempDir() // not for the other checks
	}
	app := awscdk.NewApp(&awscdk.AppProps{Outdir: jsii.String(dir), Context: &all, AnalyticsReporting: jsii.Bool(false)})
	declare(app, s, placeholders(t, s), region)
	app.Synth(nil)
	raw, err := os.ReadFile(filepath.Join(dir, "tideline-"+s.Stage+".template.json"))
	if err != nil {
		t.Fatal(err)
	}
	var out template
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Resources) < 50 {
		t.Fatalf("%s has %d resources: the template was not read", name, len(out.Resources))
	}
	return out, dir
}

// cdkContext is the context of cdk.json: feature flags decide what constructs do.
func cdkContext(t *testing.T) map[string]any {
	t.Helper()
	raw, err := os.ReadFile("../cdk.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Context map[string]any }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return file.Context
}

// placeholders stand in for what `make build` makes, so that a fresh clone can run these tests.
func placeholders(t *testing.T, s settings.Settings) edge.Builds {
	t.Helper()
	dir := t.TempDir()
	write := func(parts ...string) {
		path := filepath.Join(append([]string{dir}, parts...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("placeholder "+strings.Join(parts, "/")), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("node-" + string(s.NodeArch))
	write("assets", "index-0a1b2c3d.js")
	for _, f := range functionsOf(s) {
		write("functions", "arm64", f, "bootstrap")
	}
	return edge.Dist(dir, string(s.NodeArch), filepath.Join(dir, "assets"), dir)
}
