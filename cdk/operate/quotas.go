package main

import (
	"context"
	"math"
	"slices"
	"strings"

	"tideline/cdk/operate/aws"
	"tideline/cdk/settings"
)

// Codes of Service Quotas: VPCs in a region, and vCPUs of running on-demand instances of the standard families together.
const (
	quotaVPCs       = "L-F678F1CE"
	quotaProcessors = "L-1216C47A"
)

// standard are the families that share quotaProcessors; every other has a quota of its own.
var standard = []string{"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"}

// busyConcurrency is the Lambda concurrency below which a deployment works, and a few dozen people who click at once meet throttles: new accounts
// have 10.
const busyConcurrency = 100

const askForMore = "ask for more in Service Quotas"

// roomForVPC looks whether the quota leaves room for the stack's own VPC, which a stack that is there already has.
func roomForVPC(ctx context.Context, r *report, account *aws.Account, used int, exists bool) {
	quota, err := account.Quota(ctx, "vpc", quotaVPCs)
	if !answered(r, "vpc", err) {
		return
	}
	if !exists && used >= int(quota) {
		r.bad("vpc", "all %.0f that the account may have in this region are used: delete one, use it by -c vpcId=, or %s (vpc %s)", quota, askForMore, quotaVPCs)
		return
	}
	r.ok("vpc", "%d of %.0f are used", used, quota)
}

// processors looks whether the account may run as many nodes as the group may grow to. A roll-out launches a tenth more, at least one.
func processors(ctx context.Context, r *report, account *aws.Account, s settings.Settings) {
	family := s.NodeInstanceType[:max(0, strings.IndexAny(s.NodeInstanceType, "0123456789"))]
	if !slices.Contains(standard, family) {
		r.unknown("vCPU quota", "%s is of no standard family: its quota was not looked up", s.NodeInstanceType)
		return
	}
	quota, err := account.Quota(ctx, "ec2", quotaProcessors)
	if !answered(r, "vCPU quota", err) {
		return
	}
	each, err := account.Processors(ctx, s.NodeInstanceType)
	if !answered(r, "vCPU quota", err) {
		return
	}
	least, most := withRollout(s.MinNodes)*each, withRollout(s.MaxNodes)*each
	switch {
	case least > int(quota):
		r.bad("vCPU quota", "%d nodes and a roll-out need %d vCPUs, the account may run %.0f on demand: %s (ec2 %s)", s.MinNodes, least, quota, askForMore, quotaProcessors)
	case most > int(quota):
		r.unknown("vCPU quota", "%d nodes (maxNodes) and a roll-out need %d vCPUs, the account may run %.0f on demand: lower -c maxNodes=, or %s (ec2 %s)", s.MaxNodes, most, quota,
			askForMore, quotaProcessors)
	default:
		r.ok("vCPU quota", "at most %d of %.0f; the account's other instances share them", most, quota)
	}
}

// withRollout is how many nodes there are while a fleet of n is replaced.
func withRollout(n int) int {
	return n + max(1, int(math.Ceil(float64(n)*(settings.RolloutPercent-100)/100)))
}

// concurrency looks whether Lambda may run enough at a time.
func concurrency(ctx context.Context, r *report, account *aws.Account) {
	n, err := account.Concurrency(ctx)
	switch {
	case !answered(r, "Lambda concurrency", err):
	case n < 1:
		r.bad("Lambda concurrency", "none is left: other functions have it all reserved; %s (lambda L-B99A9384)", askForMore)
	case n < busyConcurrency:
		r.unknown("Lambda concurrency", "%d invocations at a time; enough to try it out, under %d requests are refused when many people come: %s (lambda L-B99A9384)", n, busyConcurrency, askForMore)
	default:
		r.ok("Lambda concurrency", "%d at a time", n)
	}
}
