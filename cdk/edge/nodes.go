package edge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsautoscaling"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3assets"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/settings"
	"tideline/shared/metric"
)

// Nodes says how many machines hold the sockets, and which. The zero value is two to four t4g.small.
type Nodes struct {
	InstanceType string // t4g.small when empty
	X86          bool   // InstanceType is not Graviton; Builds.Node must fit
	Min, Max     int    // 2 and 4 when zero
	// ConnectionsPerNode is what scaling aims at; 10,000 when zero.
	ConnectionsPerNode int
	// IgnoreAlarms rolls out although an alarm is on: for the deployment that fixes what it reports.
	IgnoreAlarms bool
	// Environment is added to the node's settings. Everybody who may read the template can read it: no secrets.
	Environment map[string]*string
}

func (n Nodes) withDefaults() Nodes {
	if n.InstanceType == "" {
		n.InstanceType = "t4g.small"
	}
	if n.Min == 0 {
		n.Min = 2
	}
	if n.Max == 0 {
		n.Max = max(n.Min, 4)
	}
	if n.ConnectionsPerNode == 0 {
		n.ConnectionsPerNode = 10_000
	}
	return n
}

// declareNodes: a group of instances that are made from one archive and replaced, a few at a time, when it changes.
func (e *Edge) declareNodes() {
	n := e.props.Nodes.withDefaults()
	e.NodeLogs = e.Logs(e, "NodeLogs")
	path, sum, err := writeArchive(e.props.Builds.Node, e.props.Channels, e.props.Builds.Work)
	if err != nil {
		panic(fmt.Errorf("edge: %w", err))
	}
	archive := awss3assets.NewAsset(e, str("NodeArchive"), &awss3assets.AssetProps{Path: str(path)})
	role := e.declareNodeRole(archive)
	cpu := awsec2.AmazonLinuxCpuType_ARM_64
	if n.X86 {
		cpu = awsec2.AmazonLinuxCpuType_X86_64
	}
	template := awsec2.NewLaunchTemplate(e, str("NodeTemplate"), &awsec2.LaunchTemplateProps{
		InstanceType:  awsec2.NewInstanceType(str(n.InstanceType)),
		MachineImage:  awsec2.MachineImage_LatestAmazonLinux2023(&awsec2.AmazonLinux2023ImageSsmParameterProps{CpuType: cpu}),
		Role:          role,
		SecurityGroup: e.groups.nodes,
		UserData:      awsec2.UserData_Custom(str(e.nodeUserData(archive, sum))),
		HttpTokens:    awsec2.LaunchTemplateHttpTokens_REQUIRED, HttpPutResponseHopLimit: num(1),
		// The group's name is a tag: it can't be in user data, because the group is made from this template.
		InstanceMetadataTags: yes, DetailedMonitoring: yes,
		BlockDevices: &[]*awsec2.BlockDevice{{DeviceName: str("/dev/xvda"), Volume: awsec2.BlockDeviceVolume_Ebs(num(diskGiB),
			&awsec2.EbsDeviceOptions{Encrypted: yes, VolumeType: awsec2.EbsDeviceVolumeType_GP3, DeleteOnTermination: yes})}}})
	e.Group = awsautoscaling.NewAutoScalingGroup(e, str("Nodes"), &awsautoscaling.AutoScalingGroupProps{Vpc: e.VPC, VpcSubnets: e.subnets,
		LaunchTemplate: template, MinCapacity: num(n.Min), MaxCapacity: num(n.Max), DefaultInstanceWarmup: span(warmup),
		HealthChecks: awsautoscaling.HealthChecks_WithAdditionalChecks(&awsautoscaling.AdditionalHealthChecksOptions{
			AdditionalTypes: &[]awsautoscaling.AdditionalHealthCheckType{awsautoscaling.AdditionalHealthCheckType_ELB}, GracePeriod: span(bootGrace)}),
		// Drain is cheap, so nothing is protected from scale-in; protected instances would only keep the fleet large.
		NewInstancesProtectedFromScaleIn: no,
		GroupMetrics:                     &[]awsautoscaling.GroupMetrics{awsautoscaling.GroupMetrics_All()},
		UpdatePolicy:                     awsautoscaling.UpdatePolicy_InstanceRefresh(e.refresh(n))})
	e.Group.AttachToApplicationTargetGroup(e.Targets)
	if e.apiTargets != nil {
		e.Group.AttachToApplicationTargetGroup(e.apiTargets)
	}
	e.Group.AddLifecycleHook(str("Drain"), &awsautoscaling.BasicLifecycleHookProps{LifecycleHookName: str(HookName),
		LifecycleTransition: awsautoscaling.LifecycleTransition_INSTANCE_TERMINATING, HeartbeatTimeout: span(drain.hook),
		DefaultResult: awsautoscaling.DefaultResult_CONTINUE})
	if e.assets != nil {
		e.Group.Node().AddDependency(e.assets) // a page must not be served before its files are
	}
	Accept(e.Group, "AwsSolutions-AS3", "what an operator wants to know is in the alarms; a mail for each launch would be noise")
}

// refresh replaces instances one tenth at a time, launching before terminating, and stops when an alarm goes off.
func (e *Edge) refresh(n Nodes) *awsautoscaling.InstanceRefreshOptions {
	o := &awsautoscaling.InstanceRefreshOptions{Strategy: awsautoscaling.InstanceRefreshStrategy_ROLLING,
		MinHealthyPercentage: num(100), MaxHealthyPercentage: num(settings.RolloutPercent), InstanceWarmup: span(warmup), BakeTime: span(bakeTime)}
	if !n.IgnoreAlarms {
		alarms := []interfacesawscloudwatch.IAlarmRef{}
		e.declareRolloutAlarms()
		for _, a := range e.RolloutAlarms {
			alarms = append(alarms, a)
		}
		o.Alarms = &alarms
	}
	return o
}

// declareNodeRole: what a node may do, each with the narrowest resource that AWS knows.
func (e *Edge) declareNodeRole(archive awss3assets.Asset) awsiam.Role {
	stack := awscdk.Stack_Of(e)
	role := awsiam.NewRole(e, str("NodeRole"), &awsiam.RoleProps{Description: str("Tideline nodes, stage " + e.props.Stage),
		AssumedBy: awsiam.NewServicePrincipal(str("ec2.amazonaws.com"), nil)})
	allow := func(conditions map[string]any, resource string, actions ...string) {
		p := &awsiam.PolicyStatementProps{Actions: jsii.Strings(actions...), Resources: jsii.Strings(resource)}
		if conditions != nil {
			p.Conditions = &conditions
		}
		role.AddToPrincipalPolicy(awsiam.NewPolicyStatement(p))
	}
	allow(nil, *archive.Bucket().ArnForObjects(archive.S3ObjectKey()), "s3:GetObject")
	allow(nil, *e.NodeLogs.LogGroupArn(), "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams")
	// Metrics know no resources; the namespace is what narrows them.
	allow(map[string]any{"StringEquals": map[string]any{"cloudwatch:namespace": metric.Namespace(e.props.Stage)}}, "*", "cloudwatch:PutMetricData")
	// The group's own name would be circular (group, template, role); CloudFormation begins it with the stack's name.
	group := stack.FormatArn(&awscdk.ArnComponents{Service: str("autoscaling"), Resource: str("autoScalingGroup:*:autoScalingGroupName"),
		ResourceName: str(*stack.StackName() + "-*")})
	allow(map[string]any{"StringEquals": map[string]any{"aws:ResourceTag/" + TagStage: e.props.Stage}}, *group,
		"autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat")
	e.grantRedis(role, roleNode)
	e.grantPublicKeys(role)
	e.grantServerAPI(role)
	e.grantLiveLogs(role)
	if e.props.Network.Shell {
		role.AddManagedPolicy(awsiam.ManagedPolicy_FromAwsManagedPolicyName(str("AmazonSSMManagedInstanceCore")))
		Accept(role, "AwsSolutions-IAM4", "shell=true: AWS's own policy for Session Manager, which changes with the agent")
	}
	Accept(role, "AwsSolutions-IAM5", "PutMetricData knows no resources, and the group's ARN can't be known here; both carry a condition. Log groups that are watched are named by the deployer; "+
		"finding one by its name asks about all")
	return role
}

// nodeEnvironment is the node's settings. NODE_ID, ZONE and GOMEMLIMIT are added on the instance.
func (e *Edge) nodeEnvironment() map[string]*string {
	env := map[string]*string{
		"PORT":              str(fmt.Sprint(publicPort)),
		"PRIVATE_PORT":      str(fmt.Sprint(privatePort)),
		"ALLOWED_ORIGINS":   e.URL,
		"CONNECT_ORIGINS":   e.connectSetting(),
		"TRUSTED_HOPS":      str(e.props.Front.hops()),
		"PUBLIC_SCHEME":     str("https"),
		"LOG_FORMAT":        str("json"),
		"DRAIN_GRACE":       str(drain.grace.String()),
		"DRAIN_WINDOW":      str(drain.window.String()),
		"METADATA_URL":      str("http://169.254.169.254"),
		"LIFECYCLE_HOOK":    str(HookName),
		"METRICS_NAMESPACE": str(metric.Namespace(e.props.Stage)),
		"AWS_REGION":        awscdk.Aws_REGION(),
	}
	if e.props.Channels != "" {
		env["CHANNELS_FILE"] = str("/opt/tideline/" + channelsFile)
	}
	maps.Copy(env, e.redisEnvironment(roleNode))
	maps.Copy(env, e.verifierEnvironment())
	if e.apiKeys != nil {
		env["API_KEYS_FILE"] = str(apiKeysFile)
	}
	if e.props.LiveLogs.On {
		env["LOG_GROUPS"] = str("on")
	}
	if e.issuers != nil {
		env["OIDC_ISSUERS"] = e.issuers
	}
	maps.Copy(env, e.props.Nodes.Environment)
	return env
}

func (e *Edge) nodeUserData(archive awss3assets.Asset, sum string) string {
	env := e.nodeEnvironment()
	u := userData{Region: *awscdk.Aws_REGION(), Bucket: *archive.S3BucketName(), Key: *archive.S3ObjectKey(), SHA256: sum, LogGroup: *e.NodeLogs.LogGroupName()}
	if secret := e.ServerAPIKeys(); secret != nil {
		u.APIKeys = *secret
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if strings.ContainsAny(*env[name], "\n'") {
			panic(fmt.Errorf("edge: node setting %s holds a line break or a quote", name))
		}
		u.Environment = append(u.Environment, variable{name, *env[name]})
	}
	script, err := u.render()
	if err != nil {
		panic(fmt.Errorf("edge: %w", err))
	}
	return script
}
