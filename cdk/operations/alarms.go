package operations

import (
	"fmt"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatchactions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
)

// Thresholds, with their unit.
const (
	memoryPercent  = 80  // of the cache; it never evicts, so that 100 % means that nothing is published any more
	enginePercent  = 85  // of the one core that runs Redis
	balancerErrors = 20  // 5xx answers of the load balancer itself, a minute
	streamSeconds  = 120 // age of the oldest change that was not announced
	serverlessGB   = 8   // of the cache's limit of 10
)

// missing is what an alarm makes of a minute without data. It is chosen for each, never left to the default.
type missing = awscloudwatch.TreatMissingData

const (
	fine = awscloudwatch.TreatMissingData_NOT_BREACHING // the metric exists only when something happens
	bad  = awscloudwatch.TreatMissingData_BREACHING     // no data is itself the failure
)

// watch declares an alarm: metric over threshold in so many of so many minutes.
func (o *Operations) watch(id, what string, m awscloudwatch.IMetric, threshold float64, minutes, of int, none missing) awscloudwatch.Alarm {
	return o.alarm(id, what, m, awscloudwatch.ComparisonOperator_GREATER_THAN_THRESHOLD, threshold, minutes, of, none)
}

// below is watch for a metric that is too low.
func (o *Operations) below(id, what string, m awscloudwatch.IMetric, threshold float64, minutes, of int, none missing) awscloudwatch.Alarm {
	return o.alarm(id, what, m, awscloudwatch.ComparisonOperator_LESS_THAN_THRESHOLD, threshold, minutes, of, none)
}

// alarm says in its description where the runbook has it.
func (o *Operations) alarm(id, what string, m awscloudwatch.IMetric, compare awscloudwatch.ComparisonOperator, threshold float64, minutes, of int, none missing) awscloudwatch.Alarm {
	a := awscloudwatch.NewAlarm(o.scope, str(id), &awscloudwatch.AlarmProps{Metric: m, Threshold: num(threshold), ComparisonOperator: compare,
		EvaluationPeriods: num(float64(of)), DatapointsToAlarm: num(float64(minutes)), TreatMissingData: none,
		AlarmDescription: str(fmt.Sprintf("%s. Runbook: docs/operations.md, %s", what, id))})
	a.AddAlarmAction(awscloudwatchactions.NewSnsAction(o.Topic))
	o.alarms = append(o.alarms, a)
	return a
}

func minutely(statistic string) *awscloudwatch.MetricOptions {
	return &awscloudwatch.MetricOptions{Period: awscdk.Duration_Minutes(num(1)), Statistic: str(statistic)}
}

// page marks alarms that mean that users are hurt now.
func (o *Operations) page(alarms ...awscloudwatch.Alarm) {
	for _, a := range alarms {
		o.pages = append(o.pages, a)
	}
}

func (o *Operations) declareAlarms() {
	for _, a := range o.edge.RolloutAlarms {
		a.AddAlarmAction(awscloudwatchactions.NewSnsAction(o.Topic))
		o.alarms = append(o.alarms, a)
	}
	targets := o.edge.Targets.Metrics()
	o.page(o.below("NoNode", "no node is healthy, so that nothing is served", targets.HealthyHostCount(minutely("Maximum")), 1, 2, 2, bad))
	balancer := o.edge.Balancer.Metrics()
	o.page(o.watch("BalancerErrors", "the load balancer answers 502, 503 or 504 itself",
		balancer.HttpCodeElb(awselasticloadbalancingv2.HttpCodeElb_ELB_5XX_COUNT, minutely("Sum")), balancerErrors, 3, 5, fine))
	o.watchCache()
	for _, f := range o.functions() {
		o.watch(camel(f.name)+"Errors", "the function "+f.name+" fails", f.Alias.MetricErrors(minutely("Sum")), 0, 3, 5, fine)
		o.watch(camel(f.name)+"Throttles", "Lambda refuses to run "+f.name, f.Alias.MetricThrottles(minutely("Sum")), 0, 3, 5, fine)
	}
	o.watchQueue("BroadcastFailed", "broadcast gave up what another service sent", o.edge.BroadcastFailed)
	if o.app == nil {
		return
	}
	late := o.watch("StreamLate", "changes wait to be announced: Redis is away, or the outbox fails",
		o.app.Outbox.Alias.Metric(str("IteratorAge"), minutely("Maximum")), streamSeconds*1000, 3, 3, fine)
	o.page(late)
	o.watchQueue("WorkFailed", "a task was given up", o.app.WorkDead)
	o.watchQueue("PipeFailed", "a new task never reached the worker's queue", o.app.PipeFailed)
	o.watch("TableThrottles", "DynamoDB refuses requests", o.tableMetric("WriteThrottleEvents"), 0, 3, 5, fine)
}

// watchQueue goes off while a queue of failures holds anything.
func (o *Operations) watchQueue(id, what string, failed awssqs.Queue) {
	o.watch(id, what+", and it waits in a dead-letter queue", failed.MetricApproximateNumberOfMessagesVisible(minutely("Maximum")), 0, 1, 1, fine)
}

func (o *Operations) watchCache() {
	for i, member := range o.edge.CacheMembers() {
		suffix := ""
		if i > 0 {
			suffix = fmt.Sprint(i + 1)
		}
		o.watch("CacheMemory"+suffix, "the cache fills up; full, it refuses to publish", cacheMetric("DatabaseMemoryUsagePercentage", member, "Maximum"), memoryPercent, 3, 5, bad)
		o.watch("CacheProcessor"+suffix, "Redis's one core is busy", cacheMetric("EngineCPUUtilization", member, "Average"), enginePercent, 5, 5, bad)
	}
	if name := o.edge.ServerlessCache(); name != nil {
		o.watch("CacheMemory", "the cache nears its limit; at it, it evicts and refuses", serverlessMetric("BytesUsedForCache", name, "Maximum"), serverlessGB*1e9, 3, 5, bad)
		o.watch("CacheThrottles", "the serverless cache refuses commands", serverlessMetric("ThrottledCmds", name, "Sum"), 0, 3, 5, fine)
	}
}

func cacheMetric(name string, member *string, statistic string) awscloudwatch.Metric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{Namespace: str("AWS/ElastiCache"), MetricName: str(name), Statistic: str(statistic),
		Period: awscdk.Duration_Minutes(num(1)), DimensionsMap: &map[string]*string{"CacheClusterId": member}})
}

func serverlessMetric(name string, cache *string, statistic string) awscloudwatch.Metric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{Namespace: str("AWS/ElastiCache"), MetricName: str(name), Statistic: str(statistic),
		Period: awscdk.Duration_Minutes(num(1)), DimensionsMap: &map[string]*string{"clusterId": cache}})
}

// tableMetric counts something of the application's table by the minute.
func (o *Operations) tableMetric(name string) awscloudwatch.Metric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{Namespace: str("AWS/DynamoDB"), MetricName: str(name), Statistic: str("Sum"),
		Period: awscdk.Duration_Minutes(num(1)), DimensionsMap: &map[string]*string{"TableName": o.app.Table.TableName()}})
}

// declarePage: one alarm for the pager, for what hurts users; the others wait for the morning.
func (o *Operations) declarePage() {
	rules := make([]awscloudwatch.IAlarmRule, len(o.pages))
	for i, a := range o.pages {
		rules[i] = awscloudwatch.AlarmRule_FromAlarm(a, awscloudwatch.AlarmState_ALARM)
	}
	o.Page = awscloudwatch.NewCompositeAlarm(o.scope, str("Page"), &awscloudwatch.CompositeAlarmProps{AlarmRule: awscloudwatch.AlarmRule_AnyOf(rules...),
		AlarmDescription: str("users of Tideline, stage " + o.edge.Stage() + ", are hurt now. Runbook: docs/operations.md, Page")})
	o.Page.AddAlarmAction(awscloudwatchactions.NewSnsAction(o.Topic))
}

// camel is a name with a capital.
func camel(name string) string { return string(name[0]-'a'+'A') + name[1:] }
