package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"tideline/cdk/operate/aws"
	"tideline/cdk/settings"
)

// bootstrapVersion is the least version of the CDK's bootstrap stack that takes this app's assets.
const bootstrapVersion = 6

// doctor looks for what would make a deployment fail after minutes. What may not be asked is unknown, and does not count as wrong.
func doctor(ctx context.Context, a arguments, out io.Writer) error {
	r := &report{out: out}
	account, err := aws.Open(ctx)
	if err != nil {
		return fmt.Errorf("doctor: %w", err)
	}
	s, err := settings.Parse(a.context, settings.Region(account.Region))
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			r.bad("settings", "%s", line)
		}
		return r.err("doctor")
	}
	r.ok("settings", "stage %s, edge %s, cache %s, app %s", s.Stage, s.Edge, s.Cache, s.App)
	caller, err := account.Caller(ctx)
	if err != nil {
		r.bad("credentials", "%v", err)
		return r.err("doctor")
	}
	r.ok("credentials", "account %s, region %s, as %s", caller.Account, account.Region, caller.ARN)
	bootstrapped(ctx, r, account)
	exists := deployed(ctx, r, account, s)
	zones(ctx, r, account, s)
	network(ctx, r, account, s, exists)
	callers(ctx, r, account, s)
	processors(ctx, r, account, s)
	concurrency(ctx, r, account)
	return r.err("doctor")
}

// answered says whether a question was answered, and reports it otherwise.
func answered(r *report, what string, err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, aws.ErrDenied):
		r.unknown(what, "%v", err)
	default:
		r.bad(what, "%v", err)
	}
	return false
}

func bootstrapped(ctx context.Context, r *report, account *aws.Account) {
	stack, err := account.Stack(ctx, "CDKToolkit")
	if !answered(r, "bootstrap", err) {
		return
	}
	version, _ := strconv.Atoi(stack.Outputs["BootstrapVersion"])
	switch {
	case stack.Status == "":
		r.ok("bootstrap", "none yet; make deploy does it: npx cdk bootstrap")
	case version < bootstrapVersion:
		r.bad("bootstrap", "version %d, at least %d is needed: npx cdk bootstrap", version, bootstrapVersion)
	default:
		r.ok("bootstrap", "version %d", version)
	}
}

// deployed looks whether the stack that is there can become the one that is asked for, and whether there is one. What is fixed for its life is
// in its outputs.
func deployed(ctx context.Context, r *report, account *aws.Account, s settings.Settings) bool {
	name := "tideline-" + s.Stage
	stack, err := account.Stack(ctx, name)
	if !answered(r, "stack", err) {
		return false
	}
	for output, asked := range map[string]string{"EdgeMode": s.Edge, "Zones": strings.Join(s.Zones, ","), "VPC": s.VPCID} {
		is, deployed := stack.Outputs[output]
		asked = cmp.Or(asked, settings.OwnChoice)
		if deployed && is != asked {
			r.bad("stack", "%s was deployed with %s=%q and can't become %q: deploy another stage, or destroy this one first", name, output, is, asked)
		}
	}
	switch {
	case stack.Status == "":
		r.ok("stack", "%s is not there yet", name)
	case stack.Status == "ROLLBACK_COMPLETE":
		r.bad("stack", "%s: its first deployment failed, it can only be destroyed: make destroy STAGE=%s", name, s.Stage)
	case strings.HasSuffix(stack.Status, "_FAILED"):
		r.bad("stack", "%s is in %s: see docs/deployment.md, Rolling out and back", name, stack.Status)
	case strings.HasSuffix(stack.Status, "_IN_PROGRESS"):
		r.bad("stack", "%s is in %s: somebody is deploying", name, stack.Status)
	default:
		r.ok("stack", "%s is in %s, version %s", name, stack.Status, stack.Outputs["Version"])
	}
	return stack.Status != ""
}

func zones(ctx context.Context, r *report, account *aws.Account, s settings.Settings) {
	available, err := account.Zones(ctx)
	if !answered(r, "zones", err) {
		return
	}
	slices.Sort(available)
	used := s.Zones
	if len(used) == 0 {
		if len(available) < 2 {
			r.bad("zones", "the region has %d, two are needed", len(available))
			return
		}
		used = available[:2]
	}
	if missing := without(used, available); len(missing) > 0 {
		r.bad("zones", "%s: not in this account; there are %s", strings.Join(missing, ", "), strings.Join(available, ", "))
		return
	}
	r.ok("zones", "%s", strings.Join(used, ", "))
	offered, err := account.Offered(ctx, s.NodeInstanceType)
	if !answered(r, "instance type", err) {
		return
	}
	if missing := without(used, offered); len(missing) > 0 {
		r.bad("instance type", "%s is not offered in %s; it is in %s: choose with -c nodeInstanceType= or -c zones=", s.NodeInstanceType,
			strings.Join(missing, ", "), strings.Join(offered, ", "))
		return
	}
	r.ok("instance type", "%s (%s)", s.NodeInstanceType, s.NodeArch)
}

func network(ctx context.Context, r *report, account *aws.Account, s settings.Settings, exists bool) {
	vpcs, err := account.VPCs(ctx)
	if !answered(r, "vpc", err) {
		return
	}
	if s.VPCID == "" {
		roomForVPC(ctx, r, account, len(vpcs), exists)
		return
	}
	if !slices.Contains(vpcs, s.VPCID) {
		r.bad("vpc", "%s is not in this region", s.VPCID)
		return
	}
	r.ok("vpc", "%s", s.VPCID)
	if s.Edge == settings.EdgeCloudFront {
		if n, err := account.Gateways(ctx, s.VPCID); answered(r, "internet gateway", err) {
			if n == 0 {
				r.bad("internet gateway", "none is attached to %s, and CloudFront's VPC origins need one (no route)", s.VPCID)
			} else {
				r.ok("internet gateway", "attached")
			}
		}
	}
	has, err := account.Endpoints(ctx, s.VPCID)
	if !answered(r, "endpoints", err) {
		return
	}
	want := []string{"s3", "dynamodb", "monitoring", "logs", "autoscaling"}
	if s.ServerAPISecurityGroup != "" {
		want = append(want, "secretsmanager")
	}
	if s.LiveLogs {
		want = append(want, "stream-logs")
	}
	if missing := without(want, has); len(missing) > 0 {
		r.unknown("endpoints", "none for %s: nodes need them, or a NAT gateway", strings.Join(missing, ", "))
	} else {
		r.ok("endpoints", "all %d are there", len(want))
	}
}

// callers looks for the security group that may call the server API: CloudFormation would find out after minutes.
func callers(ctx context.Context, r *report, account *aws.Account, s settings.Settings) {
	group := s.ServerAPISecurityGroup
	if group == "" {
		return
	}
	of, err := account.SecurityGroupVPC(ctx, group)
	if !answered(r, "server API", err) {
		return
	}
	ours := s.VPCID
	if ours == "" {
		stack, err := account.Stack(ctx, "tideline-"+s.Stage)
		if !answered(r, "server API", err) {
			return
		}
		ours = stack.Outputs["NetworkID"]
	}
	switch {
	case of == "":
		r.bad("server API", "%s is not in this region", group)
	case of == ours:
		r.ok("server API", "%s may call it", group)
	case ours == "":
		r.bad("server API", "%s is in %s, and this stack's VPC is not made yet: deploy without serverApiSecurityGroup first, make the group in that VPC (output NetworkID) or peer them, deploy again", group, of)
	default:
		r.unknown("server API", "%s is in %s, the nodes are in %s: only if the two are peered", group, of, ours)
	}
}

// without lists what of want is not in have.
func without(want, have []string) []string {
	var missing []string
	for _, w := range want {
		if !slices.Contains(have, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

func outputs(ctx context.Context, a arguments, out io.Writer) error {
	account, s, err := open(ctx, a)
	if err != nil {
		return err
	}
	stack, err := account.Stack(ctx, "tideline-"+s)
	if err != nil {
		return err
	}
	if stack.Status == "" {
		return fmt.Errorf("there is no stack tideline-%s in %s", s, account.Region)
	}
	names := make([]string, 0, len(stack.Outputs))
	for name := range stack.Outputs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(out, "%-18s %s\n", name, stack.Outputs[name])
	}
	return nil
}

// open the account and name the stage, which must be given: these commands are about one that is deployed.
func open(ctx context.Context, a arguments) (*aws.Account, string, error) {
	stage, _ := a.context["stage"].(string)
	if stage == "" {
		return nil, "", errors.New("which stage? -c stage=…")
	}
	account, err := aws.Open(ctx)
	return account, stage, err
}
