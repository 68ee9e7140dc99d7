package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"tideline/cdk/operate/aws"
)

// holders are the types that hold data or cost money when they stay, in words.
var holders = map[string]string{
	"AWS::DynamoDB::Table":                      "table",
	"AWS::S3::Bucket":                           "bucket",
	"AWS::KMS::Key":                             "key",
	"AWS::Cognito::UserPool":                    "user pool",
	"AWS::ElastiCache::ReplicationGroup":        "cache",
	"AWS::ElastiCache::ServerlessCache":         "cache",
	"AWS::SQS::Queue":                           "queue",
	"AWS::SecretsManager::Secret":               "secret",
	"AWS::Logs::LogGroup":                       "log group",
	"AWS::AutoScaling::AutoScalingGroup":        "nodes",
	"AWS::CloudFront::Distribution":             "distribution",
	"AWS::EC2::VPC":                             "network",
	"AWS::ElasticLoadBalancingV2::LoadBalancer": "load balancer",
}

// plan reads the *deployed* template, since that is what decides, and lists what would stay and what would go.
func plan(ctx context.Context, a arguments, out io.Writer) error {
	account, stage, err := open(ctx, a)
	if err != nil {
		return err
	}
	name := "tideline-" + stage
	stack, err := account.Stack(ctx, name)
	if err != nil {
		return err
	}
	if stack.Status == "" {
		return fmt.Errorf("there is no stack %s in %s", name, account.Region)
	}
	resources, err := account.Template(ctx, name)
	if err != nil {
		return err
	}
	names, err := account.Names(ctx, name)
	if err != nil {
		return err
	}
	stays, goes := sort(resources, names)
	fmt.Fprintf(out, "Destroying %s in %s, as it was deployed:\n\n", name, account.Region)
	section(out, "stays, and goes on costing", stays)
	section(out, "goes, with everything in it", goes)
	if len(stays) > 0 {
		fmt.Fprintf(out, "What stays is deleted by: make purge STAGE=%s CONFIRM=%s\n", stage, stage)
	}
	return nil
}

// sort the resources that matter by what happens to them.
func sort(resources map[string]aws.Resource, names map[string]string) (stays, goes []string) {
	for _, id := range slices.Sorted(maps.Keys(resources)) {
		r := resources[id]
		kind := holders[r.Type]
		if kind == "" {
			continue
		}
		line := fmt.Sprintf("%-14s %s", kind, names[id])
		switch r.DeletionPolicy {
		case "Retain", "RetainExceptOnCreate":
			stays = append(stays, line)
		case "Snapshot":
			goes = append(goes, line+"  (a last snapshot stays)")
		default:
			goes = append(goes, line)
		}
	}
	return stays, goes
}

func section(out io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		lines = []string{"nothing"}
	}
	fmt.Fprintf(out, "%s:\n  %s\n\n", title, strings.Join(lines, "\n  "))
}
