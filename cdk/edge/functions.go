package edge

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2targets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// LiveAlias is the alias that everything invokes; a deployment moves it to the new version.
const LiveAlias = "live"

var newLambdaTarget = awselasticloadbalancingv2targets.NewLambdaTarget

// FunctionProps of Edge.Function.
type FunctionProps struct {
	// Build is the name below dist/functions/arm64 whose bootstrap is deployed.
	Build string
	// What it does, in a sentence, for the console.
	Description string
	// Publishes puts it into the VPC and lets it publish on the bus as the functions' Redis user.
	Publishes bool
	// VerifiesTokens lets it read the public signing keys.
	VerifiesTokens bool
	Environment    map[string]*string
	// Timeout is 29 s when zero, less than the load balancer's idle timeout; MemoryMiB is 256 when zero.
	Timeout   time.Duration
	MemoryMiB int
}

// Function is a Go binary on Lambda, arm64, with a log group, tracing and an alias.
type Function struct {
	constructs.Construct
	Lambda awslambda.Function
	Alias  awslambda.Alias
	Logs   awslogs.LogGroup

	targets awselasticloadbalancingv2.ApplicationTargetGroup // nil before the first Route
}

// GrantPrincipal is the function's role.
func (f *Function) GrantPrincipal() awsiam.IPrincipal { return f.Lambda.GrantPrincipal() }

// Function declares a function of the application. Grants are the caller's: table.GrantReadWriteData(f.Lambda).
func (e *Edge) Function(id string, p FunctionProps) *Function {
	f := &Function{}
	constructs.NewConstruct_Override(f, e, str(id))
	if p.Timeout == 0 {
		p.Timeout = functionTimeout
	}
	if p.MemoryMiB == 0 {
		p.MemoryMiB = functionMemory
	}
	env := e.functionEnvironment()
	f.Logs = e.Logs(f, "Logs")
	role := awsiam.NewRole(f, str("Role"), &awsiam.RoleProps{
		AssumedBy:   awsiam.NewServicePrincipal(str("lambda.amazonaws.com"), nil),
		Description: str("Tideline function " + id + ", stage " + e.props.Stage)})
	f.Logs.GrantWrite(role)
	props := &awslambda.FunctionProps{Description: str(p.Description), Runtime: awslambda.Runtime_PROVIDED_AL2023(),
		Architecture: awslambda.Architecture_ARM_64(), Handler: str("bootstrap"), Role: role,
		Code:       awslambda.Code_FromAsset(str(e.functionFolder(p.Build)), nil),
		MemorySize: num(p.MemoryMiB), Timeout: span(p.Timeout), LogGroup: f.Logs, Tracing: awslambda.Tracing_ACTIVE}
	if e.props.Channels != "" {
		env["CHANNELS_FILE"] = str("/var/task/" + channelsFile)
	}
	if p.Publishes {
		props.Vpc, props.VpcSubnets = e.VPC, e.subnets
		props.SecurityGroups = &[]awsec2.ISecurityGroup{e.groups.functions}
		maps.Copy(env, e.redisEnvironment(roleFunction))
		e.grantNetworkInterfaces(role)
		e.grantRedis(role, roleFunction)
	}
	if p.VerifiesTokens {
		maps.Copy(env, e.verifierEnvironment())
		e.grantPublicKeys(role)
	}
	maps.Copy(env, p.Environment)
	props.Environment = &env
	f.Lambda = awslambda.NewFunction(f, str("Function"), props)
	f.Alias = awslambda.NewAlias(f, str("Live"), &awslambda.AliasProps{AliasName: str(LiveAlias), Version: f.Lambda.CurrentVersion()})
	Accept(f, "AwsSolutions-IAM5[Resource::*]", "X-Ray's write actions and the VPC's network interfaces know no narrower resource")
	return f
}

// functionFolder is what is deployed of a function: its bootstrap, and the namespaces where there are own ones.
func (e *Edge) functionFolder(name string) string {
	built := e.props.Builds.function(name)
	if e.props.Channels == "" {
		return built
	}
	folder := filepath.Join(e.props.Builds.Work, "functions", name)
	for to, from := range map[string]string{"bootstrap": filepath.Join(built, "bootstrap"), channelsFile: e.props.Channels} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, to), data, 0o755))
		}
		if err != nil {
			panic(fmt.Errorf("edge: function %s: %w", name, err))
		}
	}
	return folder
}

// Allow grants exactly these actions on exactly these resources. The CDK's own grants are wider, with actions that end in '*'.
func Allow(to awsiam.IGrantable, resources []*string, actions ...string) {
	awsiam.Grant_AddToPrincipal(&awsiam.GrantOnPrincipalOptions{Grantee: to, ResourceArns: &resources, Actions: jsii.Strings(actions...)})
}

// functionEnvironment is what every function is told.
func (e *Edge) functionEnvironment() map[string]*string {
	return map[string]*string{
		"STAGE":           str(e.props.Stage),
		"LOG_FORMAT":      str("json"),
		"PUBLIC_SCHEME":   str("https"),
		"TRUSTED_HOPS":    str(e.props.Front.hops()),
		"ALLOWED_ORIGINS": e.URL,
	}
}

// grantNetworkInterfaces is what Lambda needs to join a VPC. AWS's managed policy would let the function's own code do the same
// anywhere; the condition leaves it to the Lambda service.
func (e *Edge) grantNetworkInterfaces(role awsiam.Role) {
	role.AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings("ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces",
			"ec2:DescribeSubnets", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"),
		Resources: jsii.Strings("*")}))
}

// Logs is a log group that forgets after a while: 3 months with Protect, 2 weeks without.
func (e *Edge) Logs(scope constructs.Construct, id string) awslogs.LogGroup {
	retention := awslogs.RetentionDays_TWO_WEEKS
	if e.props.Protect {
		retention = awslogs.RetentionDays_THREE_MONTHS
	}
	g := awslogs.NewLogGroup(scope, str(id), &awslogs.LogGroupProps{Retention: retention, RemovalPolicy: e.Removal()})
	e.watched.own = append(e.watched.own, g)
	return g
}

// Accept accepts one finding of a rule pack for a construct and what is below it. The reason stands in the assembly's metadata.
func Accept(c constructs.IConstruct, rule, reason string) {
	awscdk.Validations_Of(c).Acknowledge(&awscdk.Acknowledgment{Id: str(rule), Reason: str(reason)})
}
