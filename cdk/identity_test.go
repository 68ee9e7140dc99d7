package main

import (
	"slices"
	"strings"
	"testing"
)

// unbounded lists the actions for which AWS knows no narrower resource than '*'. Everything else must name its resource.
var unbounded = map[string]string{
	"cloudwatch:PutMetricData":       "narrowed by its namespace",
	"xray:PutTraceSegments":          "AWS knows no resource",
	"xray:PutTelemetryRecords":       "AWS knows no resource",
	"ec2:CreateNetworkInterface":     "Lambda in a VPC",
	"ec2:DeleteNetworkInterface":     "Lambda in a VPC",
	"ec2:DescribeNetworkInterfaces":  "AWS knows no resource",
	"ec2:DescribeSubnets":            "AWS knows no resource",
	"ec2:AssignPrivateIpAddresses":   "Lambda in a VPC",
	"ec2:UnassignPrivateIpAddresses": "Lambda in a VPC",
	"dynamodb:ListStreams":           "AWS knows no resource",
	"ec2:DescribeSecurityGroups":     "AWS knows no resource",
}

// cdksOwn are roles of the CDK's helper functions.
func cdksOwn(id string) bool {
	for _, prefix := range []string{"Custom", "AWS679f53fac002430cb0da5b7982bd2287"} {
		if strings.HasPrefix(id, prefix) {
			return true
		}
	}
	return false
}

func TestNoPolicyHasEveryResourceUnlessAWSHasNoOther(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		seen := 0
		for _, s := range tm.statements(t) {
			if cdksOwn(s.holder.ID) || !slices.Contains(texts(s.body["Resource"]), "*") {
				continue
			}
			for _, action := range texts(s.body["Action"]) {
				seen++
				if unbounded[action] == "" {
					t.Errorf("%s may %s on everything", s.holder.ID, action)
				}
			}
		}
		if seen == 0 {
			t.Error("no statement with '*' was found: nodes' metrics have one, so the walk is broken")
		}
	})
}

func TestNoPolicyHasEveryAction(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, s := range tm.statements(t) {
			for _, action := range texts(s.body["Action"]) {
				if strings.Contains(action, "*") && !cdksOwn(s.holder.ID) {
					t.Errorf("%s may %s", s.holder.ID, action)
				}
			}
			if s.body["NotAction"] != nil || s.body["NotResource"] != nil {
				t.Errorf("%s allows everything but something", s.holder.ID)
			}
		}
	})
}

// keyReaders lists who may read which partition of the key ring.
func keyReaders(t *testing.T, tm template) map[string][]string {
	out := map[string][]string{}
	for _, s := range tm.statements(t) {
		if !slices.Contains(texts(s.body["Action"]), "dynamodb:GetItem") || !mentions(s.body["Resource"], "EdgeKeysTable") {
			continue
		}
		partitions := texts(at(s.body, "Condition.ForAllValues:StringEquals.dynamodb:LeadingKeys"))
		if partitions == nil {
			partitions = []string{"all"}
		}
		out[s.holder.ID] = append(out[s.holder.ID], partitions...)
	}
	return out
}

func TestOnlySessionReadsPrivateKeysAndOnlyKeysWritesThem(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		readers := keyReaders(t, tm)
		if len(readers) < 3 {
			t.Fatalf("readers %v", readers)
		}
		for holder, partitions := range readers {
			for _, p := range partitions {
				switch {
				case p == "public":
				case (p == "private#access" || p == "private#session") && strings.HasPrefix(holder, "EdgeSessionRole"):
				case p == "all" && strings.HasPrefix(holder, "EdgeKeysRole"):
				default:
					t.Errorf("%s reads the partition %q", holder, p)
				}
			}
		}
		for _, s := range tm.statements(t) {
			if slices.Contains(texts(s.body["Action"]), "dynamodb:PutItem") && mentions(s.body["Resource"], "EdgeKeysTable") &&
				!strings.HasPrefix(s.holder.ID, "EdgeKeysRole") {
				t.Errorf("%s writes keys", s.holder.ID)
			}
		}
	})
}

func TestTheKeysAreEncryptedUnderAKeyOfTheirOwn(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		key := tm.one(t, "AWS::KMS::Key", "EdgeKeysKey")
		key.want(t, "EnableKeyRotation", true)
		if table := tm.one(t, "AWS::DynamoDB::Table", "EdgeKeysTable"); !mentions(table.Properties, key.ID) {
			t.Errorf("the table does not use %s", key.ID)
		}
		for _, s := range tm.statements(t) {
			if slices.Contains(texts(s.body["Action"]), "kms:Decrypt") && at(s.body, "Condition.StringEquals.kms:ViaService") == nil {
				t.Errorf("%s may decrypt without DynamoDB", s.holder.ID)
			}
		}
	})
}

func TestEachRedisRoleSignsInOnlyAsItself(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		seen := 0
		for _, s := range tm.statements(t) {
			if !slices.Contains(texts(s.body["Action"]), "elasticache:Connect") {
				continue
			}
			seen++
			other := "-fn-"
			if !strings.HasPrefix(s.holder.ID, "EdgeNodeRole") {
				other = "-node-"
			}
			if strings.Contains(plain(s.body["Resource"]), other) {
				t.Errorf("%s may connect as the other user: %s", s.holder.ID, plain(s.body["Resource"]))
			}
		}
		if seen < 2 {
			t.Errorf("%d grants to connect", seen)
		}
	}, "dev", "prod", "alb", "serverless")
}

func TestNodesCompleteOnlyTheirOwnGroupsHook(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, s := range tm.statements(t) {
			if !slices.Contains(texts(s.body["Action"]), "autoscaling:CompleteLifecycleAction") {
				continue
			}
			if at(s.body, "Condition.StringEquals.aws:ResourceTag/tideline:stage") == nil || !strings.Contains(plain(s.body["Resource"]), "autoScalingGroupName/tideline-") {
				t.Errorf("%s", plain(s.body))
			}
			return
		}
		t.Error("nobody may complete the hook")
	})
}

func TestPublishersMayPublishAndNothingElse(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		want := []string{"events:PutEvents", "lambda:InvokeFunction", "lambda:InvokeFunctionUrl", "sns:Publish"}
		var got []string
		for _, s := range tm.statements(t) {
			if s.holder.Type != "AWS::IAM::ManagedPolicy" {
				continue
			}
			got = append(got, texts(s.body["Action"])...)
			if slices.Contains(texts(s.body["Action"]), "events:PutEvents") && at(s.body, "Condition.StringEquals.events:source") == nil {
				t.Error("publishers may send events of any source")
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
