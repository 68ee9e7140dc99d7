package operations

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatchactions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"

	"tideline/shared/metric"
)

// Thresholds, with their unit.
const (
	deliverSeconds  = 1    // publish to deliver, p99; buckets count as their upper bound, so that it is at most twice the true value
	temporaryErrors = 100  // commands answered with error 100, a minute
	requestErrors   = 20   // REST answers with 5xx, a minute
	publishFailures = 20   // publications of functions that failed, a minute; each is tried again
	balancerErrors  = 20   // 5xx answers of the load balancer itself, a minute
	slowConsumers   = 100  // connections closed because their queue was full, a minute
	recoveries      = 1000 // clients that came back and were told to fetch again, a minute
	overfull        = 1.5  // connections a node, over what scaling aims at
	memoryPercent   = 80   // of the cache; it never evicts, so that 100 % means that nothing is published any more
	enginePercent   = 85   // of the one core that runs Redis
	lagSeconds      = 5    // a replica behind its primary: what a failover would lose
	streamSeconds   = 120  // age of the oldest change that was not announced
	serverlessGB    = 8    // of the cache's limit of 10
	keysMinutes     = 15   // without a run of the keys function, which is due every 5
)

// missing is what an alarm makes of a minute without data. It is chosen for each, never left to the default.
type missing = awscloudwatch.TreatMissingData

const (
	fine = awscloudwatch.TreatMissingData_NOT_BREACHING // the metric exists only when something happens, or another alarm watches the silence
	bad  = awscloudwatch.TreatMissingData_BREACHING     // no data is itself the failure
)

// watched is one alarm: the metric is past the threshold in so many of so many periods.
type watched struct {
	id, what  string
	runbook   string // heading of docs/operations.md; empty: the id
	metric    awscloudwatch.IMetric
	below     bool // the metric is too low, not too high
	threshold float64
	hits, of  int
	none      missing
	pages     bool // users are hurt now
}

func (o *Operations) watch(w watched) {
	compare := awscloudwatch.ComparisonOperator_GREATER_THAN_THRESHOLD
	if w.below {
		compare = awscloudwatch.ComparisonOperator_LESS_THAN_THRESHOLD
	}
	a := awscloudwatch.NewAlarm(o.scope, str(w.id), &awscloudwatch.AlarmProps{Metric: w.metric, Threshold: num(w.threshold), ComparisonOperator: compare,
		EvaluationPeriods: num(float64(w.of)), DatapointsToAlarm: num(float64(w.hits)), TreatMissingData: w.none,
		AlarmDescription: str(w.what + ". " + o.edge.Runbook(cmp.Or(w.runbook, strings.TrimRight(w.id, "0123456789"))))})
	a.AddAlarmAction(awscloudwatchactions.NewSnsAction(o.Topic))
	o.alarms = append(o.alarms, a)
	if w.pages {
		o.pages = append(o.pages, a)
	}
}

func minutely(statistic string) *awscloudwatch.MetricOptions {
	return &awscloudwatch.MetricOptions{Period: awscdk.Duration_Minutes(num(1)), Statistic: str(statistic)}
}

// declareAlarms: one for each way in which guarantees come to an end, in the order of the dashboard.
func (o *Operations) declareAlarms() {
	o.watchUsers()
	o.watchFront()
	o.watchNodes()
	o.watchCache()
	o.watchFunctions()
	o.watchQueue("BroadcastFailed", "broadcast gave up what another service sent", o.edge.BroadcastFailed)
	if o.app != nil {
		o.watchData()
	}
}

// watchUsers: what browsers notice, by the nodes' own figures. Nodes send zeros, so that none means that no node sends: NodesSilent.
func (o *Operations) watchUsers() {
	o.watch(watched{id: "CanaryMissed", what: "a node does not hear what is published", metric: o.own(metric.CloudCanaryMissed, "Sum", "", nil),
		threshold: 0, hits: 3, of: 5, none: fine, pages: true})
	o.watch(watched{id: "SlowDelivery", what: "publications reach browsers late", metric: o.own(metric.CloudLatency, "p99", "", nil),
		threshold: deliverSeconds, hits: 3, of: 5, none: fine, pages: true})
	o.watch(watched{id: "TemporaryErrors", what: "clients can't subscribe or publish: Redis does not answer nodes", metric: o.own(metric.CloudErrors, "Sum", "", nil),
		threshold: temporaryErrors, hits: 3, of: 5, none: fine, pages: true})
	o.watch(watched{id: "GapsAnnounced", what: "continuity was lost and subscribers were told", metric: o.own(metric.CloudGaps, "Sum", "", nil),
		threshold: 0, hits: 1, of: 1, none: fine})
	o.watch(watched{id: "FailedRecoveries", what: "many clients came back too late for the history and were told to fetch again",
		metric: o.own(metric.CloudFailedRecoveries, "Sum", "", nil), threshold: recoveries, hits: 3, of: 5, none: fine})
	o.watch(watched{id: "Drops", what: "nodes drop messages of Redis that they can't take in time, and read them from the stream",
		metric: o.own(metric.CloudDrops, "Sum", "", nil), threshold: 0, hits: 3, of: 5, none: fine})
	o.watch(watched{id: "SlowConsumers", what: "many clients are closed because they read too slowly", metric: o.own(metric.CloudSlowConsumers, "Sum", "", nil),
		threshold: slowConsumers, hits: 3, of: 5, none: fine})
	o.watch(watched{id: "Resubscribes", what: "nodes lose their connections to Redis again and again", metric: o.own(metric.CloudResubscribes, "Sum", "", nil),
		threshold: 0, hits: 4, of: 5, none: fine})
}

// watchFront: the load balancer, and what functions answer through it.
func (o *Operations) watchFront() {
	o.watch(watched{id: "BalancerErrors", what: "the load balancer answers 502, 503 or 504 itself",
		metric:    o.edge.Balancer.Metrics().HttpCodeElb(awselasticloadbalancingv2.HttpCodeElb_ELB_5XX_COUNT, minutely("Sum")),
		threshold: balancerErrors, hits: 3, of: 5, none: fine, pages: true})
	o.watch(watched{id: "RequestErrors", what: "REST requests are answered with 5xx", metric: o.sum(metric.RequestErrors, o.servers()),
		threshold: requestErrors, hits: 3, of: 5, none: fine, pages: true})
	o.watch(watched{id: "PublishFailures", what: "functions can't publish; what was saved is announced later", metric: o.sum(metric.PublishFailures, o.publishers()),
		threshold: publishFailures, hits: 3, of: 5, none: fine})
}

func (o *Operations) watchNodes() {
	targets := o.edge.Targets.Metrics()
	o.watch(watched{id: "NoNode", what: "no node is healthy, so that nothing is served", metric: targets.HealthyHostCount(minutely("Maximum")),
		below: true, threshold: 1, hits: 2, of: 2, none: bad, pages: true})
	o.watch(watched{id: "NodesSilent", what: "no node sends its figures: scaling and half of the alarms are blind", metric: o.connections("SampleCount", ""),
		below: true, threshold: 1, hits: 5, of: 5, none: bad})
	o.watch(watched{id: "NodesFull", what: "nodes hold more connections than scaling aims at: the group can't grow", metric: o.connections("Average", ""),
		threshold: overfull * float64(o.edge.ConnectionsPerNode()), hits: 10, of: 10, none: fine})
	for _, a := range o.edge.RolloutAlarms {
		a.AddAlarmAction(awscloudwatchactions.NewSnsAction(o.Topic))
		o.alarms = append(o.alarms, a)
	}
}

func (o *Operations) watchCache() {
	for i, member := range o.edge.CacheMembers() {
		suffix := ""
		if i > 0 {
			suffix = fmt.Sprint(i + 1)
		}
		o.watch(watched{id: "CacheMemory" + suffix, what: "the cache fills up; full, it refuses to publish",
			metric: cacheMetric("DatabaseMemoryUsagePercentage", member, "Maximum"), threshold: memoryPercent, hits: 3, of: 5, none: bad})
		o.watch(watched{id: "CacheProcessor" + suffix, what: "Redis's one core is busy",
			metric: cacheMetric("EngineCPUUtilization", member, "Average"), threshold: enginePercent, hits: 5, of: 5, none: bad})
		if o.edge.Protected() { // there are replicas; the metric comes from whoever is one at the time
			o.watch(watched{id: "CacheLag" + suffix, what: "a replica lags: a failover now would lose what it has not got",
				metric: cacheMetric("ReplicationLag", member, "Maximum"), threshold: lagSeconds, hits: 3, of: 5, none: fine})
		}
	}
	if name := o.edge.ServerlessCache(); name != nil {
		o.watch(watched{id: "CacheMemory", what: "the cache nears its limit; at it, it evicts and refuses",
			metric: serverlessMetric("BytesUsedForCache", name, "Maximum"), threshold: serverlessGB * 1e9, hits: 3, of: 5, none: bad})
		o.watch(watched{id: "CacheThrottles", what: "the serverless cache refuses commands",
			metric: serverlessMetric("ThrottledCmds", name, "Sum"), threshold: 0, hits: 3, of: 5, none: fine})
		o.watch(watched{id: "CacheEvictions", what: "the cache forgets histories before their time; subscribers are told",
			metric: serverlessMetric("Evictions", name, "Sum"), threshold: 0, hits: 1, of: 1, none: fine})
	}
}

func (o *Operations) watchFunctions() {
	for _, f := range o.functions() {
		runbook := "FunctionErrors"
		if f.name == "keys" {
			runbook = ""
		}
		o.watch(watched{id: camel(f.name) + "Errors", runbook: runbook, what: "the function " + f.name + " fails", metric: f.Alias.MetricErrors(minutely("Sum")),
			threshold: 0, hits: 3, of: 5, none: fine})
		o.watch(watched{id: camel(f.name) + "Throttles", runbook: "FunctionThrottles", what: "Lambda refuses to run " + f.name,
			metric: f.Alias.MetricThrottles(minutely("Sum")), threshold: 0, hits: 3, of: 5, none: fine})
	}
	o.watch(watched{id: "KeysSilent", what: "the keys function does not run, so that signing keys and issuers' keys grow old",
		metric: o.edge.Keys.Alias.MetricInvocations(&awscloudwatch.MetricOptions{Period: awscdk.Duration_Minutes(num(keysMinutes)), Statistic: str("Sum")}),
		below:  true, threshold: 1, hits: 1, of: 1, none: bad})
}

func (o *Operations) watchData() {
	o.watch(watched{id: "StreamLate", what: "changes wait to be announced: Redis is away, or the outbox fails",
		metric: o.app.Outbox.Alias.Metric(str("IteratorAge"), minutely("Maximum")), threshold: streamSeconds * 1000, hits: 3, of: 3, none: fine, pages: true})
	o.watchQueue("WorkFailed", "a task was given up", o.app.WorkDead)
	o.watchQueue("PipeFailed", "a new task never reached the worker's queue", o.app.PipeFailed)
	o.watch(watched{id: "TableThrottles", what: "DynamoDB refuses requests", metric: o.tableMetric("WriteThrottleEvents"), threshold: 0, hits: 3, of: 5, none: fine})
}

// watchQueue goes off while a queue of failures holds anything.
func (o *Operations) watchQueue(id, what string, failed awssqs.Queue) {
	o.watch(watched{id: id, what: what + ", and it waits in a dead-letter queue", metric: failed.MetricApproximateNumberOfMessagesVisible(minutely("Maximum")),
		threshold: 0, hits: 1, of: 1, none: fine})
}

// camel is a name with a capital.
func camel(name string) string { return string(name[0]-'a'+'A') + name[1:] }
