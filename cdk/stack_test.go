package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tideline/cdk/edge"
)

func readFile(t *testing.T, parts ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// fixed are the properties that name a resource for the whole account and region, or for a bus that stages share.
var fixed = []string{"UserId", "UserGroupId", "ServerlessCacheName", "ReplicationGroupId", "FunctionName", "RoleName", "ManagedPolicyName", "Domain",
	"DashboardName", "AlarmName", "LoadBalancerName", "TableName", "BucketName", "QueueName", "TopicName", "LogGroupName", "AutoScalingGroupName",
	"LaunchTemplateName", "FinalSnapshotName", "KeyName", "EventBusName", "MetricName", "Namespace"}

func names(tm template) map[string]string {
	out := map[string]string{}
	for id, r := range tm.Resources {
		for _, key := range fixed {
			if name, ok := r.Properties[key].(string); ok && !strings.HasPrefix(id, "Custom") && !strings.HasPrefix(name, "AWS/") && key != "MetricName" {
				out[key+" "+name] = id
			}
		}
	}
	return out
}

func TestEachStagesNamesDiffer(t *testing.T) {
	one, _ := synthWith(t, "stage-one", map[string]any{"stage": "one", "cache": "serverless"}, testRegion)
	two, _ := synthWith(t, "stage-two", map[string]any{"stage": "two", "cache": "serverless"}, testRegion)
	first := names(one)
	if len(first) < 4 {
		t.Fatalf("names %v", first)
	}
	for name := range names(two) {
		if first[name] != "" && !strings.HasSuffix(name, " default") {
			t.Errorf("both stages have %s", name)
		}
	}
	for name := range first {
		if !strings.Contains(name, "one") && !strings.HasSuffix(name, " default") {
			t.Errorf("%s does not carry the stage", name)
		}
	}
	for _, r := range one.all(t, "AWS::Events::Rule") {
		if source := r.get("EventPattern.source"); source != nil && plain(source) != `["`+edge.EventSource("one")+`"]` {
			t.Errorf("rule %s listens to %s on the bus that stages share", r.ID, plain(source))
		}
	}
}

// A version in the tags of a VPC origin would update it with every deployment, which CloudFront refuses while it is in use.
func TestEverythingIsTaggedAndOnlyTheOriginWithoutAVersion(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		tagged := 0
		for id, r := range tm.Resources {
			if r.Properties["Tags"] == nil || cdksOwn(id) {
				continue
			}
			tagged++
			tags := plain(r.Properties["Tags"])
			for _, tag := range []string{edge.TagApp, edge.TagStage, edge.TagVersion} {
				want := tag != edge.TagVersion || r.Type != "AWS::CloudFront::VpcOrigin"
				if strings.Contains(tags, tag) != want {
					t.Errorf("%s %s: tag %s present: %v", r.Type, id, tag, !want)
				}
			}
		}
		if tagged < 25 {
			t.Errorf("only %d resources are tagged", tagged)
		}
	})
}

func TestStackTagsDoNotReachTheOriginBehindTheTemplate(t *testing.T) {
	synth(t, "dev")
	if manifest := readFile(t, templates["dev"].dir, "manifest.json"); strings.Contains(manifest, edge.TagVersion) {
		t.Error("the stack itself is tagged: CloudFormation would put that on the VPC origin")
	}
}

func TestOutputsTellWhatAnOperatorNeeds(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, name := range []string{"URL", "WebSocketURL", "BalancerDNSName", "RedisEndpoint", "NodeGroup", "NodeTargets", "NodeLogGroup", "KeysTable",
			"BroadcastArn", "BroadcastURL", "BroadcastTopic", "PublisherPolicy", "SessionArn", "KeysArn", "EdgeMode", "DataIsKept", "Version"} {
			if tm.Outputs[name] == nil {
				t.Errorf("no output %s", name)
			}
		}
	})
}

func TestAppNoneIsTheEdgeAlone(t *testing.T) {
	tm := synth(t, "serverless")
	for id := range tm.Resources {
		if strings.HasPrefix(id, "Todo") || strings.HasPrefix(id, "EdgeTodos") || strings.HasPrefix(id, "EdgeTasks") {
			t.Errorf("%s", id)
		}
	}
	var functions []string
	for _, f := range tm.all(t, "AWS::Lambda::Function") {
		if !cdksOwn(f.ID) {
			functions = append(functions, f.ID[:10])
		}
	}
	slices.Sort(functions)
	if want := []string{"EdgeBroadc", "EdgeKeysFu", "EdgeSessio"}; !slices.Equal(functions, want) {
		t.Errorf("functions %v", functions)
	}
}

func TestResourcesFitIntoOneStack(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		if n := len(tm.Resources); n > 400 { // CloudFormation takes 500
			t.Errorf("%d resources", n)
		}
	})
}

// A template that differs from one synthesis to the next would update resources in deployments that change nothing.
func TestSynthesisIsTheSameEveryTime(t *testing.T) {
	for _, name := range []string{"dev", "alb"} {
		first := plain(synth(t, name))
		for range 3 {
			again, _ := synthWith(t, "again-"+name, variants[name], testRegion)
			if second := plain(again); second != first {
				i := 0
				for i < min(len(first), len(second)) && first[i] == second[i] {
					i++
				}
				t.Fatalf("%s differs: …%.300s\n…%.300s", name, first[max(0, i-150):], second[max(0, i-150):])
			}
		}
	}
}

// The template itself refuses a setting that can't change: the stack that is there holds the parameter's old value, which the new template does not allow.
func TestWhatIsFixedForLifeIsAParameterWithOneAllowedValue(t *testing.T) {
	for variant, want := range map[string]map[string]string{
		"dev":      {"EdgeMode": "cloudfront", "Zones": "default", "VPC": "default"},
		"alb":      {"EdgeMode": "alb", "Zones": "eu-central-1a,eu-central-1b,eu-central-1c", "VPC": "default"},
		"existing": {"EdgeMode": "cloudfront", "Zones": "eu-central-1a,eu-central-1b", "VPC": "vpc-0123456789abcdef0"},
	} {
		tm := synth(t, variant)
		for name, value := range want {
			p := tm.Parameters["Fixed"+name]
			if p["Type"] != "String" || p["Default"] != value || plain(p["AllowedValues"]) != plain([]string{value}) ||
				!strings.Contains(fmt.Sprint(p["ConstraintDescription"]), "="+value+": not what this stack was deployed with") {
				t.Errorf("%s: Fixed%s is %s", variant, name, plain(p))
			}
			if got := plain(tm.Outputs[name]["Value"]); got != `{"Ref":"Fixed`+name+`"}` {
				t.Errorf("%s: output %s is %s", variant, name, got)
			}
		}
	}
}
