package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/edge"
	"tideline/cdk/operations"
	"tideline/cdk/settings"
	"tideline/cdk/todoapp"
)

// declare makes the stack of one deployment: the edge, the application on it, tags and outputs.
func declare(app awscdk.App, s settings.Settings, builds edge.Builds, region string) awscdk.Stack {
	props := &awscdk.StackProps{StackName: jsii.String("tideline-" + s.Stage), Description: jsii.String("Tideline " + s.Stage + ": realtime edge and todo application"),
		TerminationProtection: jsii.Bool(s.Prod)}
	if region != "" {
		// The region alone: with an account too, the CDK would look up zones, and synthesis would need credentials.
		props.Env = &awscdk.Environment{Region: jsii.String(region)}
	}
	stack := awscdk.NewStack(app, jsii.String("tideline-"+s.Stage), props)
	tag(stack, s)
	e := edge.NewEdge(stack, "Edge", edgeProps(s, builds))
	ops := operations.Props{Email: s.AlarmEmail}
	if s.App == settings.AppTodo {
		a := todoapp.New(stack, "Todo", e, todoapp.Props{TableName: s.TableName, TableStreamARN: s.TableStreamARN})
		outputApp(stack, a)
		ops.App = a
	}
	o := operations.New(stack, "Operations", e, ops)
	outputs(stack, map[string]out{
		"AlarmTopic":   {o.Topic.TopicArn(), "where alarms go"},
		"DashboardURL": {dashboardURL(o), "dashboard"},
	})
	output(stack, e, s)
	fix(stack, "EdgeMode", "edge", s.Edge)
	fix(stack, "Zones", "zones", strings.Join(s.Zones, ","))
	fix(stack, "VPC", "vpcId", s.VPCID)
	return stack
}

// functionsOf lists the functions that a deployment needs built.
func functionsOf(s settings.Settings) []string {
	all := []string{"keys", "session", "broadcast"}
	if s.App == settings.AppTodo {
		all = append(all, todoapp.Builds...)
	}
	return all
}

func tag(stack awscdk.Stack, s settings.Settings) {
	for name, value := range map[string]string{edge.TagApp: "tideline", edge.TagStage: s.Stage, edge.TagVersion: s.Version} {
		awscdk.Tags_Of(stack).Add(jsii.String(name), jsii.String(value), nil)
	}
}

func edgeProps(s settings.Settings, builds edge.Builds) edge.Props {
	return edge.Props{Stage: s.Stage, Protect: s.Prod, Builds: builds, Channels: s.Channels, Runbook: s.RunbookURL,
		Network: edge.Network{Zones: s.Zones, VPCID: s.VPCID, Subnets: s.SubnetIDs, PublicSubnets: s.PublicSubnetIDs, Shell: s.Shell},
		Front:   edge.Front{Public: s.Edge == settings.EdgeALB, Domain: s.DomainName, CertificateARN: s.CertificateARN, WebACLARN: s.WebACLARN},
		Cache:   edge.Cache{Kind: s.Cache, Engine: s.Engine, NodeType: s.CacheNodeType, Shards: s.CacheShards, URL: s.RedisURL},
		Nodes: edge.Nodes{InstanceType: s.NodeInstanceType, X86: s.NodeArch == settings.AMD64, Min: s.MinNodes, Max: s.MaxNodes,
			ConnectionsPerNode: s.ConnectionsPerNode, IgnoreAlarms: !s.RefreshAlarms, Environment: pointers(s.NodeLimits)},
		ServerAPI: edge.ServerAPI{SecurityGroup: s.ServerAPISecurityGroup}, LiveLogs: edge.LiveLogs{On: s.LiveLogs, Others: s.LogGroups},
		Auth: edge.Auth{Issuer: s.OIDCIssuer, Audience: s.OIDCAudience, Name: s.OIDCName, RoleClaim: s.RoleClaim, Operator: s.OperatorRole,
			Cognito: s.Cognito},
	}
}

func pointers(values map[string]string) map[string]*string {
	out := map[string]*string{}
	for name, value := range values {
		out[name] = jsii.String(value)
	}
	return out
}

func output(stack awscdk.Stack, e *edge.Edge, s settings.Settings) {
	if url := e.ServerAPIURL(); url != nil {
		outputs(stack, map[string]out{"ServerApiURL": {url, "server API, for the security group that may call it"},
			"ServerApiKeys": {e.ServerAPIKeys(), "secret with its keys, the newest first"}})
	}
	outputs(stack, map[string]out{
		"URL":                  {e.URL, "the page"},
		"WebSocketURL":         {e.SocketURL, "where clients connect"},
		"BalancerDNSName":      {e.Balancer.LoadBalancerDnsName(), "load balancer"},
		"RedisEndpoint":        {e.RedisEndpoint(), "the bus, reachable from inside only"},
		"NetworkID":            {e.VPC.VpcId(), "the VPC"},
		"NodeGroup":            {e.Group.AutoScalingGroupName(), "Auto Scaling group of the nodes"},
		"NodeTargets":          {e.Targets.TargetGroupArn(), "target group of the nodes"},
		"NodeLogGroup":         {e.NodeLogs.LogGroupName(), "logs of the nodes"},
		"KeysTable":            {e.KeysTable.TableName(), "signing keys"},
		"BroadcastArn":         {e.Broadcast.Alias.FunctionArn(), "publishes for other services"},
		"BroadcastURL":         {e.BroadcastURL, "the same, by signed HTTP request"},
		"BroadcastTopic":       {e.Topic.TopicArn(), "the same, by SNS"},
		"PublisherPolicy":      {e.Publisher.ManagedPolicyArn(), "attach it to whoever shall publish"},
		"BroadcastFailedQueue": {e.BroadcastFailed.QueueUrl(), "what broadcast gave up"},
		"SessionArn":           {e.Session.Alias.FunctionArn(), "function"},
		"KeysArn":              {e.Keys.Alias.FunctionArn(), "function"},
		"DataIsKept":           {jsii.String(fmt.Sprint(s.Prod)), "whether tables and buckets outlive the stack"},
		"Version":              {jsii.String(s.Version), "what is deployed"},
	})
}

// fix is meant to make CloudFormation itself refuse another value of a setting that can't change in a stack's life, before it touches anything: a parameter
// whose only allowed value, and default, is the one that is asked for. The CDK's command line deploys a stack that is there with the parameters
// that it has, so that a template with another setting does not allow the value that it meets. That CloudFormation checks such a value has not been tried
// (docs/deployment.md, experiment 12); doctor compares the output, and is what to rely on.
func fix(stack awscdk.Stack, name, setting, value string) {
	value = cmp.Or(value, settings.OwnChoice)
	p := awscdk.NewCfnParameter(stack, jsii.String("Fixed"+name), &awscdk.CfnParameterProps{Default: value, AllowedValues: jsii.Strings(value),
		Description: jsii.String("the setting " + setting + ", fixed for the stack's life: do not set this"),
		ConstraintDescription: jsii.String(fmt.Sprintf("%s=%s: not what this stack was deployed with, and fixed for its life; deploy another stage, or destroy this one first",
			setting, value))})
	outputs(stack, map[string]out{name: {p.ValueAsString(), "the setting " + setting + ", fixed for the stack's life"}})
}

func outputApp(stack awscdk.Stack, a *todoapp.App) {
	outputs(stack, map[string]out{
		"TodoTable":           {a.Table.TableName(), "todos and tasks"},
		"FilesBucket":         {a.Files.BucketName(), "imports and exports"},
		"FailedRecordsBucket": {a.Failed.BucketName(), "stream records that were given up; make replay"},
		"WorkQueue":           {a.Work.QueueUrl(), "tasks that wait"},
		"WorkFailedQueue":     {a.WorkDead.QueueUrl(), "tasks that were given up"},
		"PipeFailedQueue":     {a.PipeFailed.QueueUrl(), "new tasks that never reached the worker's queue"},
		"TodosArn":            {a.Todos.Alias.FunctionArn(), "function"},
		"TasksArn":            {a.Tasks.Alias.FunctionArn(), "function"},
		"WorkerArn":           {a.Worker.Alias.FunctionArn(), "function"},
		"OutboxArn":           {a.Outbox.Alias.FunctionArn(), "function"},
	})
}

// out is one output of the stack.
type out struct {
	value *string
	what  string
}

func outputs(stack awscdk.Stack, named map[string]out) {
	for name, o := range named {
		awscdk.NewCfnOutput(stack, jsii.String(name), &awscdk.CfnOutputProps{Value: o.value, Description: jsii.String(o.what)})
	}
}

func dashboardURL(o *operations.Operations) *string {
	region := *awscdk.Aws_REGION()
	return jsii.String("https://" + region + ".console.aws.amazon.com/cloudwatch/home?region=" + region + "#dashboards/dashboard/" + *o.Dashboard.DashboardName())
}
