package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/edge"
	"tideline/cdk/settings"
)

// The walk-through of docs/your-app.md: an application of one's own on the edge, without todos.
func TestAnotherApplicationUsesTheEdge(t *testing.T) {
	builds := placeholders(t, settings.Settings{NodeArch: settings.ARM64, App: settings.AppNone})
	folder := filepath.Join(builds.Functions, "orders")
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "bootstrap"), []byte("orders"), 0o755)); err != nil {
		t.Fatal(err)
	}
	channels := filepath.Join(t.TempDir(), "channels.json")
	if err := os.WriteFile(channels, []byte(`{"orders": true}`), 0o644); err != nil {
		t.Fatal(err)
	}
	context := cdkContext(t)
	dir := t.TempDir()
	app := awscdk.NewApp(&awscdk.AppProps{Outdir: jsii.String(dir), Context: &context, AnalyticsReporting: jsii.Bool(false)})
	stack := awscdk.NewStack(app, jsii.String("shop"), nil)
	e := edge.NewEdge(stack, "Edge", edge.Props{Stage: "shop", Builds: builds, Channels: channels})
	table := awsdynamodb.NewTable(stack, jsii.String("Orders"), e.Table(&awsdynamodb.TableProps{PartitionKey: edge.Text("id")}))
	orders := e.Function("Orders", edge.FunctionProps{Build: "orders", Publishes: true, VerifiesTokens: true,
		Environment: map[string]*string{"ORDERS_TABLE": table.TableName()}, Description: "REST API of orders"})
	edge.Allow(orders.Lambda, []*string{table.TableArn()}, "dynamodb:PutItem")
	e.Route(orders, 200, "/api/orders", "/api/orders/*")
	app.Synth(nil)

	var tm template
	if err := json.Unmarshal([]byte(readFile(t, dir, "shop.template.json")), &tm); err != nil {
		t.Fatal(err)
	}
	f := tm.one(t, "AWS::Lambda::Function", "EdgeOrdersFunction")
	for _, name := range []string{"REDIS_URL", "REDIS_IAM_USER", "KEYS_TABLE", "ALLOWED_ORIGINS", "ORDERS_TABLE", "STAGE"} {
		if f.get("Environment.Variables."+name) == nil {
			t.Errorf("the function is not told %s", name)
		}
	}
	f.want(t, "Environment.Variables.CHANNELS_FILE", "/var/task/channels.json")
	rule := tm.one(t, "AWS::ElasticLoadBalancingV2::ListenerRule", "EdgeOrdersRoute200")
	rule.want(t, "Conditions.0.PathPatternConfig.Values", []string{"/api/orders", "/api/orders/*"})
	if data := userData(t, tm); !strings.Contains(data, "CHANNELS_FILE=/opt/tideline/channels.json\n") {
		t.Error("nodes don't know the namespaces")
	}
	if files := archived(t, dir); files["channels.json"] != `{"orders": true}` || files["install.sh"] == "" || files["tideline-node"] == "" {
		t.Errorf("the archive holds %d files", len(files))
	}
}

// archived are the files of the node's archive in an assembly, by name.
func archived(t *testing.T, dir string) map[string]string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "asset.*.tar.gz"))
	if err != nil || len(found) != 1 {
		t.Fatalf("archives %v, %v", found, err)
	}
	zipped, err := gzip.NewReader(bytes.NewReader([]byte(readFile(t, found[0]))))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(data)
	}
}
