package main

import (
	"strings"
	"testing"

	"tideline/cdk/cost"
	"tideline/cdk/settings"
)

func TestCostPricesTheSettingsThatWouldBeDeployed(t *testing.T) {
	for context, want := range map[string]cost.Deployment{
		"": {Instance: "t4g.small", CacheNode: "cache.t4g.micro", CacheNodes: 1, MinNodes: 2, PerNode: 9, Zones: 2, Endpoints: 3, Balancers: 1, CloudFront: true, App: true},
		"stage=prod auth=guest cache=cluster cacheShards=3 shell=true logGroups=own serverApiSecurityGroup=sg-01234567 zones=eu-central-1a,eu-central-1b,eu-central-1c": {Instance: "c7g.large",
			CacheNode: "cache.m7g.large", CacheNodes: 6, MinNodes: 2, PerNode: 9, Zones: 3, Endpoints: 8, Balancers: 2, Secrets: 1, CloudFront: true, App: true},
		"cache=serverless app=none": {Instance: "t4g.small", MinNodes: 2, PerNode: 9, Zones: 2, Endpoints: 3, Balancers: 1, CloudFront: true},
		"redisUrl=rediss://x:6379 vpcId=vpc-01234567 zones=eu-central-1a,eu-central-1b subnetIds=subnet-01234567,subnet-01234568": {Instance: "t4g.small", CacheNode: "cache.t4g.micro", CacheNodes: 1,
			ExternalCache: true, MinNodes: 2, PerNode: 9, Zones: 2, Balancers: 1, CloudFront: true, App: true},
	} {
		all := map[string]any{}
		for pair := range strings.FieldsSeq(context) {
			name, value, _ := strings.Cut(pair, "=")
			all[name] = value
		}
		s, err := settings.Parse(all, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := priced(s, 9); got != want {
			t.Errorf("%s:\n%+v, want\n%+v", context, got, want)
		}
	}
}

func TestCostAsksNobodyAndNamesWhatIsWrong(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	out, err := command(t, "cost", "-c", "stage=prod", "-c", "connections=100000", "-c", "rate=", "-c", "perNode=25000")
	if err != nil || !strings.Contains(out, "25000 connections a node (PER_NODE)") || !strings.Contains(out, "= 4 c7g.large") || !strings.Contains(out, "×  AppSync Events") {
		t.Errorf("%v\n%s", err, out)
	}
	for args, want := range map[string]string{
		"":                                "docs/benchmarks.md is not there: make bench writes it; or say PER_NODE=", // the tests' folder has none
		"-c connections=many -c rate=two": "connections=many: not a number",
		"-c perNode=10 -c size=0":         "size=0: a number from 1 to 65536",
		"-c edge=nlb -c perNode=10":       "edge=nlb: cloudfront or alb",
		"-c perNode=10 -c nodeInstanceType=c7i.large": "no price of ec2.c7i.large",
	} {
		if _, err := command(t, append([]string{"cost"}, strings.Fields(args)...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
