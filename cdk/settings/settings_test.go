package settings

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const (
	certificate = "arn:aws:acm:eu-central-1:123456789012:certificate/0a1b"
	virginia    = "arn:aws:acm:us-east-1:123456789012:certificate/0a1b"
	globalACL   = "arn:aws:wafv2:us-east-1:123456789012:global/webacl/guard/0a1b"
	regionalACL = "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/guard/0a1b"
	stream      = "arn:aws:dynamodb:eu-central-1:123456789012:table/kept/stream/2026-11-01T00:00:00.000"
)

// context from "a=b c=d".
func context(pairs string) map[string]any {
	out := map[string]any{}
	for pair := range strings.FieldsSeq(pairs) {
		name, value, _ := strings.Cut(pair, "=")
		out[name] = value
	}
	return out
}

func TestMistakesNameTheValueAndWhatIsAllowed(t *testing.T) {
	for _, c := range []struct{ context, want string }{
		{"maxNode=3", "maxNode=3: no such setting; there are stage, profile,"},
		{"stage=Prod", "stage=Prod: a-z, 0-9"},
		{"stage=abcdefghijklmnopq", "at most 16 characters"},
		{"stage=dev-", "stage=dev-:"},
		{"profile=big", "profile=big: dev or prod"},
		{"edge=nlb", "edge=nlb: cloudfront or alb"},
		{"edge=alb", "edge=alb: a public load balancer needs domainName and certificateArn"},
		{"app=chat", "app=chat: todo or none"},
		{"certificateArn=" + virginia, "a certificate needs domainName"},
		{"domainName=live.example.com", "a domain needs certificateArn"},
		{"domainName=http://x certificateArn=" + virginia, "domainName=http://x: a host name"},
		{"domainName=live.example.com certificateArn=arn:aws:iam::1:server-certificate/x", "arn:aws:acm:REGION"},
		{"domainName=live.example.com certificateArn=" + certificate, "CloudFront takes certificates of us-east-1 only"},
		{"edge=alb domainName=live.example.com certificateArn=" + virginia, "certificates of its own region only, eu-central-1"},
		{"webAclArn=" + regionalACL, "CloudFront takes web ACLs of scope global"},
		{"edge=alb domainName=live.example.com certificateArn=" + certificate + " webAclArn=" + globalACL, "web ACLs of scope regional"},
		{"zones=eu-central-1a", "zones=eu-central-1a: 2 to 6 zones"},
		{"zones=eu-central-1a,eu-central-1a", "each only once"},
		{"zones=1a,1b", "zones=1a: zones such as"},
		{"vpcId=vpc-1", "vpcId=vpc-1: vpc-…"},
		{"vpcId=vpc-01234567", "an existing VPC needs zones and one subnet of each"},
		{"vpcId=vpc-01234567 zones=eu-central-1a,eu-central-1b subnetIds=subnet-01234567", "one subnet of each"},
		{"subnetIds=subnet-01234567", "subnets are named together with vpcId"},
		{"vpcId=vpc-01234567 zones=eu-central-1a,eu-central-1b subnetIds=subnet-01234567,subnet-01234568 shell=true", "its owner makes the endpoints"},
		{"shell=yes", "shell=yes: true or false"},
		{"nodeInstanceType=c7g", "nodeInstanceType=c7g: not an EC2 instance type"},
		{"nodeInstanceType=mac2.metal", "there is no build for macOS; arm64 (Graviton) or amd64 (x86)"},
		{"minNodes=5 maxNodes=3", "minNodes=5: at most maxNodes, 3"},
		{"minNodes=0", "minNodes=0: a number from 1 to 200"},
		{"maxNodes=201", "maxNodes=201: a number from 1 to 200"},
		{"maxNodes=many", "maxNodes=many: a number"},
		{"stage=prod auth=guest minNodes=1", "profile=prod keeps at least 2"},
		{"connectionsPerNode=99", "a number from 100 to 1000000"},
		{"cache=memcached", "cache=memcached: node or cluster or serverless"},
		{"engine=dragonfly", "engine=dragonfly: valkey or redis"},
		{"cacheShards=3", "shards need cache=cluster"},
		{"cache=cluster cacheShards=91", "a number from 1 to 90"},
		{"cache=serverless cacheNodeType=cache.t4g.micro", "has no node type"},
		{"cacheNodeType=t4g.micro", "an ElastiCache node type"},
		{"redisUrl=http://x:1", `redisUrl: scheme "http"`},
		{"redisUrl=rediss://x", "redisUrl: needs host:port"},
		{"redisUrl=rediss://x:6379 cache=cluster", "nothing about a new one can be chosen"},
		{"tableName=kept", "an adopted table needs tableStreamArn"},
		{"tableStreamArn=" + stream, "the stream of a table that tableName adopts"},
		{"tableName=other tableStreamArn=" + stream, "the stream of other"},
		{"app=none tableName=kept tableStreamArn=" + stream, "app=none has no table"},
		{"auth=ldap", "auth=ldap: guest or oidc"},
		{"stage=prod", "auth=: guest or oidc; profile=prod has no default"},
		{"auth=oidc", "oidcIssuer and oidcAudience, or cognito=true"},
		{"auth=oidc oidcIssuer=http://x oidcAudience=y", "oidcIssuer=http://x: an https:// address"},
		{"auth=oidc cognito=true oidcIssuer=https://x", "the pool is the issuer"},
		{"oidcIssuer=https://x", "oidcIssuer=https://x: auth=oidc"},
		{"auth=oidc cognito=true oidcName=A", "oidcName=A: a-z"},
		{"connectionsPerIp=0", "connectionsPerIp=0: a number from 1 to 10000000"},
		{"messageBytes=1048577", "a number from 1024 to 1048576"},
		{"queueBytes=131071", "a number from 131072 to 67108864"},
		{"compression=yes", "compression=yes: on or off"},
		{"logLevel=trace", "logLevel=trace: debug or info or warn or error"},
		{"logGroups=/a,/a", "each only once"},
		{"logGroups=*", "logGroups=*: off, own, or names"},
		{"logGroups=own,/a", "names beside the stack's own"},
		{"logGroups=" + strings.Repeat("a,", 20) + "b", "each only once"},
		{"serverApiSecurityGroup=default", "serverApiSecurityGroup=default: sg-…"},
		{"runbookUrl=http://wiki", "runbookUrl=http://wiki: an https:// address"},
		{"runbookUrl=https://wiki#x", "without a fragment"},
		{"alarmEmail=ops", "alarmEmail=ops: one e-mail address"},
	} {
		_, err := Parse(context(c.context), "eu-central-1")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.context, err, c.want)
		}
	}
}

func TestAllMistakesAreReportedTogether(t *testing.T) {
	_, err := Parse(context("stage=UP edge=x minNodes=9 maxNodes=1 what=ever"), "")
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("%v, want four lines", err)
	}
}

func TestAPasswordInARedisURLIsRefusedAndNotShown(t *testing.T) {
	_, err := Parse(context("redisUrl=rediss://app:hunter2@bus.example.com:6379"), "")
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "password") {
		t.Errorf("%v", err)
	}
}

func TestWhatIsAllowedPasses(t *testing.T) {
	for _, c := range []string{"", "stage=a", "stage=abcdefghijklmnop", "minNodes=1 maxNodes=200", "connectionsPerNode=1000000", "cache=cluster cacheShards=90",
		"domainName=live.example.com certificateArn=" + virginia + " webAclArn=" + globalACL,
		"edge=alb domainName=live.example.com certificateArn=" + certificate + " webAclArn=" + regionalACL,
		"logGroups=off", "logGroups=own", "logGroups=/aws/lambda/*,b", "serverApiSecurityGroup=sg-01234567", "logLevel=debug compression=off", "runbookUrl=https://wiki.example.com/operations",
		"stage=prod auth=oidc cognito=true", "stage=prod auth=guest", "redisUrl=redis+cluster://x:6379", "tableName=kept tableStreamArn=" + stream,
		"nodeInstanceType=c7i.large", "nodeInstanceType=m7i-flex.large", "@aws-cdk/core:permissionsBoundary=x availability-zones:account=1=x"} {
		if _, err := Parse(context(c), "eu-central-1"); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestProfilesDifferInSizeAndLife(t *testing.T) {
	dev, err := Parse(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	prod, err := Parse(context("stage=prod auth=guest"), "")
	if err != nil {
		t.Fatal(err)
	}
	if dev.Prod || !prod.Prod || dev.NodeInstanceType == prod.NodeInstanceType || dev.CacheNodeType == prod.CacheNodeType {
		t.Errorf("dev %+v\nprod %+v", dev, prod)
	}
	if small, err := Parse(context("stage=prod profile=dev"), ""); err != nil || small.Prod {
		t.Errorf("%+v, %v", small, err)
	}
}

func TestArchitecturesOfInstanceTypes(t *testing.T) {
	for instance, want := range map[string]Arch{"c7g.large": ARM64, "t4g.nano": ARM64, "c7gn.16xlarge": ARM64, "im4gn.large": ARM64, "is4gen.medium": ARM64,
		"x2gd.metal": ARM64, "a1.large": ARM64, "g5g.xlarge": ARM64, "c7i.large": AMD64, "m7i-flex.large": AMD64, "g4dn.xlarge": AMD64, "t3a.micro": AMD64,
		"g6e.xlarge": AMD64, "m7a.metal-48xl": AMD64, "inf2.xlarge": AMD64} {
		if got, err := ArchOf(instance); got != want || err != nil {
			t.Errorf("%s: %s, %v", instance, got, err)
		}
	}
}

func TestTheDocumentationListsEverySetting(t *testing.T) {
	page, err := os.ReadFile("../../docs/deployment.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys {
		if !strings.Contains(string(page), fmt.Sprintf("| `%s` |", k.Name)) {
			t.Errorf("docs/deployment.md has no row for %s", k.Name)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		found := false
		for _, k := range Keys {
			found = found || k.Name == row[1]
		}
		if !found {
			t.Errorf("docs/deployment.md lists %s, which is no setting", row[1])
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, k := range Keys {
		f.Add(k.Name, k.Default)
	}
	f.Add("redisUrl", "rediss://a:b@c:1")
	f.Fuzz(func(t *testing.T, name, value string) {
		s, err := Parse(map[string]any{name: value}, "eu-central-1")
		if err == nil && (s.Stage == "" || s.MinNodes < 1 || s.MaxNodes < s.MinNodes || s.NodeArch == "") {
			t.Errorf("%s=%q gave %+v", name, value, s)
		}
	})
}
