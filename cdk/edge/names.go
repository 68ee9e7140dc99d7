package edge

import (
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/settings"
	"tideline/shared/limit"
)

// Ports. publicPort is reached by the balancer's requests, privatePort by its health checks only.
const (
	publicPort  = 8000
	privatePort = 9000
	redisPort   = 6379
	httpPort    = 80
	httpsPort   = 443
)

// Sizes and times that only the stack cares about, with their unit. What it shares with code is in shared/limit.
const (
	diskGiB          = 20
	functionMemory   = 256 // MiB
	functionTimeout  = 29 * time.Second
	keysEvery        = 5 * time.Minute
	warmup           = 60 * time.Second  // from boot to a node that takes its share; scaling waits for it
	bootGrace        = 180 * time.Second // from launch until a failing health check counts: boot, download, start
	bakeTime         = 2 * time.Minute   // alarms are watched this long after a roll-out
	cpuTarget        = 60                // percent; scaling out only
	hstsAge          = 365 * 24 * time.Hour
	snapshotsKept    = 7  // days
	trafficLogDays   = 30 // access, connection and flow logs
	trafficLogProd   = 90
	serverlessMaxGB  = 10    // ElastiCache Serverless: most data, and
	serverlessMaxCPU = 30000 // most ECPUs a second
)

// HookName is the lifecycle hook that a node completes when it has drained; it is unique within its group.
const HookName = "drain"

// EventSource is the `source` of events on the default bus that this stage's broadcast function publishes. Stages share the bus.
func EventSource(stage string) string { return "tideline." + stage }

// BroadcastDetailType is their `detail-type`.
const BroadcastDetailType = "tideline.broadcast"

// redisUser names an ElastiCache user. ElastiCache takes 40 lower-case characters; user name and id must be equal for IAM. The engine
// is part of it, because changing the engine replaces the user and the new one can't have the old one's name.
func redisUser(stage, role, engine string) string {
	return "tideline-" + stage + "-" + role + "-" + engine
}

var (
	str = jsii.String
	yes = jsii.Bool(true)
	no  = jsii.Bool(false)
)

func num[T ~int | ~int64 | ~float64](n T) *float64 { return jsii.Number(float64(n)) }

// span is a duration in whole seconds, which is what every AWS setting here takes.
func span(d time.Duration) awscdk.Duration { return awscdk.Duration_Seconds(num(d / time.Second)) }

// The drain's numbers, as the balancer, the group, the unit and the node get them.
var drain = struct{ grace, window, deregistration, stop, hook time.Duration }{
	limit.DrainGrace, limit.DrainWindow, limit.DeregistrationDelay, limit.StopTimeout, limit.HookHeartbeat,
}

// Tags of everything that the stack makes. Billing, purging and the drain's permission go by them.
const (
	TagApp     = settings.TagApp
	TagStage   = settings.TagStage
	TagVersion = settings.TagVersion
)
