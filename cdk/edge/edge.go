// Package edge is the construct that puts Tideline's realtime edge into a stack: network, balancer, nodes, cache, keys and publishing.
//
// An application makes one Edge, adds its functions with Function and Route, and publishes to the channels that browsers follow:
//
//	e := edge.NewEdge(stack, "Edge", edge.Props{Stage: "dev", Builds: edge.Dist("dist", "arm64", "", tmp)})
//	f := e.Function("Orders", edge.FunctionProps{Build: "orders", Publishes: true})
//	e.Route(f, 200, "/api/orders", "/api/orders/*")
//
// docs/your-app.md walks through it. Everything here only declares; nothing calls AWS. A construct that is declared twice in one
// stack, or with values that contradict each other, panics at synthesis, as the CDK's own constructs do: package settings checks
// what a person typed before it comes here.
package edge

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awsautoscaling"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudfront"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/constructs-go/constructs/v10"
)

// Props of an Edge. The zero value of a group is the small development deployment.
type Props struct {
	// Stage tells deployments apart: it is part of names, of the bus's keys and of the metric namespace. At most 16 characters.
	Stage string
	// Protect keeps data and logs when the stack goes, spreads the cache over zones and takes snapshots. It is fixed at deploy:
	// what a later `cdk destroy` says does not change it.
	Protect bool
	// Builds finds what is deployed: Dist for `make build`'s output.
	Builds Builds
	// Channels is a JSON file of namespaces, for nodes and functions; empty means the ones that ship. docs/protocol.md has its form.
	Channels string
	// Runbook is the address at which an operator reads docs/operations.md; alarms and the dashboard link to its headings. Empty names the file.
	Runbook string
	Network Network
	Front   Front
	Cache   Cache
	Nodes   Nodes
	Auth    Auth
	// ServerAPI and LiveLogs are off in their zero values.
	ServerAPI ServerAPI
	LiveLogs  LiveLogs
}

// Edge is the declared edge. Its fields are for widgets, alarms and outputs of the application.
type Edge struct {
	constructs.Construct

	// URL and SocketURL are what browsers open; tokens that resolve at deploy.
	URL       *string
	SocketURL *string

	VPC      awsec2.IVpc
	Balancer awselasticloadbalancingv2.ApplicationLoadBalancer
	// Distribution is nil with Front.Public.
	Distribution awscloudfront.Distribution
	Targets      awselasticloadbalancingv2.ApplicationTargetGroup
	Group        awsautoscaling.AutoScalingGroup
	NodeLogs     awslogs.LogGroup
	// BucketLogs is where the application's buckets send their access logs.
	BucketLogs awss3.Bucket
	// ServerAPI is the server API's own load balancer; nil where it is closed.
	ServerAPI awselasticloadbalancingv2.ApplicationLoadBalancer
	// RolloutAlarms end an instance refresh that makes things worse.
	RolloutAlarms []awscloudwatch.Alarm

	KeysTable awsdynamodb.ITable
	Keys      *Function
	Session   *Function
	Broadcast *Function
	Topic     awssns.Topic
	// BroadcastFailed has the events, messages and invocations that Broadcast gave up.
	BroadcastFailed awssqs.Queue
	// BroadcastURL takes signed requests (AWS_IAM).
	BroadcastURL *string
	// Publisher may publish through broadcast by invoke, event, topic and URL: attach it to other stacks' roles.
	Publisher awsiam.ManagedPolicy

	props    Props
	subnets  *awsec2.SubnetSelection
	groups   securityGroups
	logs     awss3.Bucket
	listener awselasticloadbalancingv2.ApplicationListener
	cache    cache
	assets   constructs.IDependable // the page's files, uploaded
	issuers  *string                // the setting OIDC_ISSUERS; nil lets guests in
	connect  connectOrigins
	watched  watchedGroups
	calls    awslogs.LogGroup // of callLogs

	apiKeys    awssecretsmanager.Secret // nil where the server API is closed
	apiTargets awselasticloadbalancingv2.ApplicationTargetGroup
}

// NewEdge declares the edge, from the ground up: each step uses only what the steps before it made.
func NewEdge(scope constructs.Construct, id string, props Props) *Edge {
	e := &Edge{props: props}
	constructs.NewConstruct_Override(e, scope, str(id)) // so that e itself is the scope of what it declares
	e.declareNetwork()
	e.declareLogBuckets()
	e.declareSecurityGroups()
	e.declareCache()
	e.declareBalancer()
	e.declareFront()
	e.declareKeys()
	e.declareServerAPI()
	e.declareNodes()
	e.declareScaling()
	e.declareBroadcast()
	return e
}
