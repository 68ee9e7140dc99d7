package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// stateful are the types whose loss is a loss of data.
var stateful = []string{"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::KMS::Key", "AWS::ElastiCache::ReplicationGroup", "AWS::Cognito::UserPool",
	"AWS::SQS::Queue", "AWS::Logs::LogGroup"}

func TestProdRetainsItsData(t *testing.T) {
	tm := synth(t, "prod")
	for _, kind := range stateful {
		for _, r := range tm.maybe(kind) {
			if cdksOwn(r.ID) {
				continue
			}
			want := "Retain"
			if kind == "AWS::ElastiCache::ReplicationGroup" {
				want = "Snapshot"
			}
			if kind == "AWS::SQS::Queue" && strings.HasPrefix(r.ID, "TodoWork") {
				continue // what waits in it is in the table too
			}
			if r.DeletionPolicy != want || r.UpdateReplacePolicy != want {
				t.Errorf("%s %s: %q, %q when it is replaced", kind, r.ID, r.DeletionPolicy, r.UpdateReplacePolicy)
			}
		}
	}
	for _, table := range tm.all(t, "AWS::DynamoDB::Table") {
		table.want(t, "DeletionProtectionEnabled", true)
	}
	tm.all(t, "AWS::ElasticLoadBalancingV2::LoadBalancer")
	cache := tm.one(t, "AWS::ElastiCache::ReplicationGroup", "EdgeCache")
	cache.want(t, "MultiAZEnabled", true)
	cache.want(t, "AutomaticFailoverEnabled", true)
	cache.want(t, "SnapshotRetentionLimit", 7)
	if n := len(tm.maybe("Custom::S3AutoDeleteObjects")); n != 0 {
		t.Errorf("%d buckets would be emptied", n)
	}
}

func TestDevDestroysAndEmpties(t *testing.T) {
	tm := synth(t, "dev")
	for _, kind := range stateful {
		for _, r := range tm.maybe(kind) {
			if r.DeletionPolicy == "Retain" {
				t.Errorf("%s %s would stay", kind, r.ID)
			}
		}
	}
	for _, table := range tm.all(t, "AWS::DynamoDB::Table") {
		table.want(t, "DeletionProtectionEnabled", false)
	}
	if buckets, emptied := len(tm.all(t, "AWS::S3::Bucket")), len(tm.all(t, "Custom::S3AutoDeleteObjects")); buckets != emptied {
		t.Errorf("%d buckets, %d are emptied: the rest would hold the stack up", buckets, emptied)
	}
}

// A retained resource with a fixed name would be in the way of the next deployment of the same stage.
func TestRetainedResourcesHaveNoFixedNames(t *testing.T) {
	for _, r := range synth(t, "prod").Resources {
		if r.DeletionPolicy != "Retain" {
			continue
		}
		for _, key := range []string{"BucketName", "TableName", "QueueName", "LogGroupName", "UserPoolName"} {
			if r.Properties[key] != nil {
				t.Errorf("%s: %s is %s", r.Type, key, plain(r.Properties[key]))
			}
		}
	}
}

func TestTablesAreOnDemandWithPointInTimeRecovery(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, table := range tm.all(t, "AWS::DynamoDB::Table") {
			table.want(t, "BillingMode", "PAY_PER_REQUEST")
			table.want(t, "PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled", true)
			table.want(t, "TimeToLiveSpecification.Enabled", true)
		}
	})
}

func TestTheTodoTableStreamsBothImages(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		tm.one(t, "AWS::DynamoDB::Table", "TodoTable").want(t, "StreamSpecification.StreamViewType", "NEW_AND_OLD_IMAGES")
	}, "dev", "prod", "alb")
}

func TestAnAdoptedTableIsUsedAndNotMade(t *testing.T) {
	tm := synth(t, "existing")
	for _, table := range tm.all(t, "AWS::DynamoDB::Table") {
		if strings.HasPrefix(table.ID, "Todo") {
			t.Errorf("%s is made", table.ID)
		}
	}
	tm.one(t, "AWS::Lambda::Function", "EdgeTodosFunction").want(t, "Environment.Variables.TODO_TABLE", "kept")
	if m := tm.all(t, "AWS::Lambda::EventSourceMapping"); !slices.ContainsFunc(m, func(r resource) bool {
		return strings.Contains(plain(r.get("EventSourceArn")), "table/kept/stream/2026-11-01")
	}) {
		t.Error("nobody reads the adopted table's stream")
	}
}

// Eviction would tear a channel's keys apart one by one; a freed backlog would change the epoch of every channel.
func TestTheCacheNeverEvicts(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		p := tm.one(t, "AWS::ElastiCache::ParameterGroup", "EdgeCacheParameters")
		p.want(t, "Properties.maxmemory-policy", "noeviction")
		p.want(t, "Properties.repl-backlog-ttl", "0")
	}, "dev", "prod", "alb")
}

func TestTheCacheTakesTLSAndIAMOnly(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, u := range tm.all(t, "AWS::ElastiCache::User") {
			if u.get("UserName") == "default" {
				if access := u.get("AccessString").(string); !strings.HasPrefix(access, "off ") {
					t.Errorf("the default user is on: %s", access)
				}
				continue
			}
			u.want(t, "AuthenticationMode.Type", "iam")
			u.want(t, "UserName", u.get("UserId"))
			if id := u.get("UserId").(string); len(id) > 40 || id != strings.ToLower(id) {
				t.Errorf("user id %q", id)
			}
			if access := u.get("AccessString").(string); !strings.Contains(access, " -@all ") || strings.Contains(access, "allkeys") || strings.Contains(access, "~* ") {
				t.Errorf("access of %s: %s", u.ID, access)
			}
		}
		for _, c := range tm.maybe("AWS::ElastiCache::ReplicationGroup") {
			c.want(t, "TransitEncryptionEnabled", true)
			c.want(t, "TransitEncryptionMode", "required")
			c.want(t, "AtRestEncryptionEnabled", true)
		}
	}, "dev", "prod", "alb", "serverless")
}

func TestTheLongestStageStillNamesUsersThatElastiCacheTakes(t *testing.T) {
	tm, _ := synthWith(t, "longest", map[string]any{"stage": "abcdefghijklmnop", "engine": "valkey"}, testRegion)
	for _, u := range tm.all(t, "AWS::ElastiCache::User") {
		if id := u.get("UserId").(string); len(id) > 40 {
			t.Errorf("%q has %d characters", id, len(id))
		}
	}
}

func TestRedisURLsSpeakTheCachesProtocol(t *testing.T) {
	for name, scheme := range map[string]string{"dev": "rediss://", "prod": "rediss://", "alb": "rediss+cluster://", "serverless": "rediss+cluster://", "existing": "rediss://bus.example.com:6390"} {
		f := synth(t, name).one(t, "AWS::Lambda::Function", "EdgeBroadcastFunction")
		if url := plain(f.get("Environment.Variables.REDIS_URL")); !strings.Contains(url, `"`+scheme) {
			t.Errorf("%s: %s", name, url)
		}
	}
}

func TestNoBucketIsPublicAndAllDemandTLS(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		policies := plain(tm.all(t, "AWS::S3::BucketPolicy"))
		for _, b := range tm.all(t, "AWS::S3::Bucket") {
			for _, key := range []string{"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"} {
				b.want(t, "PublicAccessBlockConfiguration."+key, true)
			}
			if b.get("BucketEncryption") == nil {
				t.Errorf("%s is not encrypted", b.ID)
			}
			if !strings.Contains(policies, b.ID) {
				t.Errorf("%s has no policy that demands TLS", b.ID)
			}
		}
		for _, p := range tm.all(t, "AWS::S3::BucketPolicy") {
			if body := plain(p.get("PolicyDocument")); !strings.Contains(body, `"aws:SecureTransport":"false"`) {
				t.Errorf("%s does not demand TLS", p.ID)
			}
		}
	})
}

func TestLogsAndFilesAreForgottenInTime(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, g := range tm.all(t, "AWS::Logs::LogGroup") {
			if g.get("RetentionInDays") == nil {
				t.Errorf("%s keeps its logs for ever", g.ID)
			}
		}
		for _, b := range tm.all(t, "AWS::S3::Bucket") {
			if !strings.HasPrefix(b.ID, "EdgeAssets") && b.get("LifecycleConfiguration") == nil {
				t.Errorf("%s forgets nothing", b.ID)
			}
		}
	})
}

// secretive are names and shapes of secrets; the template can be read by everybody who may describe the stack.
var secretive = regexp.MustCompile(`(?i)TOKEN_SECRETS|AKIA[0-9A-Z]{16}|-----BEGIN|password=|"AuthToken"|"Passwords"|"SecretString"|rediss?://[^/"]*@`)

func TestNoTemplateAndNoUserDataHoldsASecret(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		if found := secretive.FindString(plain(tm.Resources) + plain(tm.Outputs)); found != "" {
			t.Errorf("the template holds %q", found)
		}
	})
}

func TestSynthesisLooksNothingUp(t *testing.T) {
	everywhere(t, func(t *testing.T, _ template) {})
	for name, s := range templates {
		if manifest := readFile(t, s.dir, "manifest.json"); strings.Contains(manifest, `"missing"`) {
			t.Errorf("%s asks the command line for context", name)
		}
	}
}

func TestSynthesisNeedsNoRegion(t *testing.T) {
	tm, dir := synthWith(t, "nowhere", map[string]any{}, "")
	if strings.Contains(readFile(t, dir, "manifest.json"), `"missing"`) {
		t.Error("asks the command line for context")
	}
	tm.all(t, "AWS::EC2::Subnet")
}
