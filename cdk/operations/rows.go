package operations

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"

	"tideline/shared/metric"
)

func (o *Operations) users() []awscloudwatch.IWidget {
	return []awscloudwatch.IWidget{
		o.graph("Connections", third, o.connections("Sum", "all nodes"), o.connections("Average", "a node"), o.connections("Maximum", "the fullest node")),
		o.graph("Publish to deliver, seconds", third, o.own(metric.CloudLatency, "p50", "p50", nil), o.own(metric.CloudLatency, "p99", "p99", nil)),
		o.graph("Messages a second", third, o.perSecond("d", metric.CloudDeliveries, "delivered"), o.perSecond("p", metric.CloudPublications, "published by clients")),
	}
}

// losses: what nodes say of their messages, all nodes together. Each is near 0 on a good day.
func (o *Operations) losses() []awscloudwatch.IWidget {
	sums := func(names ...string) []awscloudwatch.IMetric {
		all := make([]awscloudwatch.IMetric, len(names))
		for i, name := range names {
			all[i] = o.own(name, "Sum", name, nil)
		}
		return all
	}
	return []awscloudwatch.IWidget{
		o.graph("Canaries missed, a minute", third, sums(metric.CloudCanaryMissed)...),
		o.graph("Errors, gaps, failed recoveries, a minute", third, sums(metric.CloudErrors, metric.CloudGaps, metric.CloudFailedRecoveries)...),
		o.graph("Drops, slow consumers, resubscribes, a minute", third, sums(metric.CloudDrops, metric.CloudSlowConsumers, metric.CloudResubscribes)...),
	}
}

func (o *Operations) front() []awscloudwatch.IWidget {
	m, nodes := o.edge.Balancer.Metrics(), o.edge.Targets.Metrics()
	all := []awscloudwatch.IWidget{
		o.graph("Balancer: requests, new connections, a minute", third, m.RequestCount(minutely("Sum")), m.NewConnectionCount(minutely("Sum"))),
		o.graph("5xx a minute: the balancer's, the nodes', refused connections", third, m.HttpCodeElb(awselasticloadbalancingv2.HttpCodeElb_ELB_5XX_COUNT, minutely("Sum")),
			nodes.HttpCodeTarget(awselasticloadbalancingv2.HttpCodeTarget_TARGET_5XX_COUNT, minutely("Sum")), m.RejectedConnectionCount(minutely("Sum"))),
		o.graph("Balancer: open connections (each counts on both sides), capacity units", third, m.ActiveConnectionCount(minutely("Sum")), m.ConsumedLCUs(minutely("Average"))),
	}
	if api := o.edge.ServerAPI; api != nil {
		all = append(all, o.graph("Server API: requests, 5xx, a minute", full, api.Metrics().RequestCount(minutely("Sum")),
			api.Metrics().HttpCodeTarget(awselasticloadbalancingv2.HttpCodeTarget_TARGET_5XX_COUNT, minutely("Sum")),
			api.Metrics().HttpCodeElb(awselasticloadbalancingv2.HttpCodeElb_ELB_5XX_COUNT, minutely("Sum"))))
	}
	if d := o.edge.Distribution; d != nil {
		// CloudFront's figures are in one region, whatever the stack's is; alarms can't look there, graphs can.
		there := func(name, statistic string) awscloudwatch.IMetric {
			return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{Namespace: str("AWS/CloudFront"), MetricName: str(name), Statistic: str(statistic), Region: str("us-east-1"),
				Period: awscdk.Duration_Minutes(num(1)), DimensionsMap: &map[string]*string{"DistributionId": d.DistributionId(), "Region": str("Global")}})
		}
		all = append(all, o.graph("CloudFront: requests a minute", half, there("Requests", "Sum")),
			o.graph("CloudFront: answers with 4xx and 5xx, percent", half, there("4xxErrorRate", "Average"), there("5xxErrorRate", "Average")))
	}
	return all
}

func (o *Operations) nodes() []awscloudwatch.IWidget {
	group := o.edge.Group.AutoScalingGroupName()
	ec2 := func(name, statistic, label string) awscloudwatch.IMetric {
		return amazon("EC2", name, statistic, "AutoScalingGroupName", group).With(&awscloudwatch.MetricOptions{Label: str(label)})
	}
	scaling := func(name string) awscloudwatch.IMetric {
		return amazon("AutoScaling", name, "Average", "AutoScalingGroupName", group)
	}
	return []awscloudwatch.IWidget{
		o.graph("Nodes: healthy, unhealthy, wanted, ending", third, o.edge.Targets.Metrics().HealthyHostCount(minutely("Minimum")),
			o.edge.Targets.Metrics().UnhealthyHostCount(minutely("Maximum")), scaling("GroupDesiredCapacity"), scaling("GroupTerminatingInstances")),
		o.graph("Nodes: processor, percent", third, ec2("CPUUtilization", "Average", "mean"), ec2("CPUUtilization", "Maximum", "the busiest")),
		o.graph("Nodes: bytes queued for the slowest node's clients", third, o.own(metric.CloudQueueBytes, "Maximum", metric.CloudQueueBytes, nil)),
	}
}

func (o *Operations) oneNode() []awscloudwatch.IWidget {
	of := func(name, statistic string) awscloudwatch.IMetric {
		return amazon("EC2", name, statistic, "InstanceId", str(noInstance))
	}
	return []awscloudwatch.IWidget{
		o.graph("One node: processor, percent; credits", third, of("CPUUtilization", "Average"), of("CPUCreditBalance", "Minimum")),
		o.graph("One node: bytes a minute; failed status checks", third, of("NetworkIn", "Sum"), of("NetworkOut", "Sum"), of("StatusCheckFailed", "Maximum")),
		awscloudwatch.NewLogQueryWidget(&awscloudwatch.LogQueryWidgetProps{Title: str("One node: its log, without what clients did"), Width: num(third), Height: num(widgetH),
			LogGroupNames: &[]*string{o.edge.NodeLogs.LogGroupName()}, View: awscloudwatch.LogQueryVisualizationType_TABLE,
			QueryString: str("filter @logStream like /" + noInstance + "/ and not ispresent(client)\n| fields @timestamp, level, msg, error\n| sort @timestamp desc\n| limit 50")}),
	}
}

func (o *Operations) redis() []awscloudwatch.IWidget {
	var memory, processor, connections, refused []awscloudwatch.IMetric
	for _, member := range o.edge.CacheMembers() {
		memory = append(memory, cacheMetric("DatabaseMemoryUsagePercentage", member, "Maximum"))
		processor = append(processor, cacheMetric("EngineCPUUtilization", member, "Average"))
		connections = append(connections, cacheMetric("CurrConnections", member, "Maximum"), cacheMetric("ReplicationLag", member, "Maximum"))
		refused = append(refused, cacheMetric("AuthenticationFailures", member, "Sum"), cacheMetric("CommandAuthorizationFailures", member, "Sum"),
			cacheMetric("KeyAuthorizationFailures", member, "Sum"))
	}
	if name := o.edge.ServerlessCache(); name != nil {
		memory = append(memory, serverlessMetric("BytesUsedForCache", name, "Maximum"))
		processor = append(processor, serverlessMetric("ElastiCacheProcessingUnits", name, "Sum"))
		connections = append(connections, serverlessMetric("CurrConnections", name, "Maximum"))
		refused = append(refused, serverlessMetric("ThrottledCmds", name, "Sum"), serverlessMetric("Evictions", name, "Sum"))
	}
	if len(memory) == 0 {
		return []awscloudwatch.IWidget{awscloudwatch.NewTextWidget(&awscloudwatch.TextWidgetProps{Width: num(full), Height: num(1),
			Markdown: str("Redis is not this stack's: " + *o.edge.RedisEndpoint())})}
	}
	const quarter = 6
	return []awscloudwatch.IWidget{o.graph("Redis: memory", quarter, memory...), o.graph("Redis: processor", quarter, processor...),
		o.graph("Redis: connections; lag, seconds", quarter, connections...), o.graph("Redis: refused", quarter, refused...)}
}

func (o *Operations) lambdas() []awscloudwatch.IWidget {
	var calls, errors, duration []awscloudwatch.IMetric
	for _, f := range o.functions() {
		label := func(m awscloudwatch.Metric) awscloudwatch.IMetric {
			return m.With(&awscloudwatch.MetricOptions{Label: str(f.name)})
		}
		calls = append(calls, label(f.Alias.MetricInvocations(minutely("Sum"))))
		errors = append(errors, label(f.Alias.MetricErrors(minutely("Sum"))))
		duration = append(duration, label(f.Alias.MetricDuration(minutely("p99"))))
	}
	all := []awscloudwatch.IWidget{o.graph("Functions: calls a minute", third, calls...), o.graph("Functions: failed calls a minute", third, errors...),
		o.graph("Functions: p99, ms", third, duration...),
		o.graph("Requests: p99, seconds", third, o.each(metric.RequestLatency, "p99", o.servers())...),
		o.graph("Requests answered with 5xx, a minute", third, o.each(metric.RequestErrors, "Sum", o.servers())...)}
	repeated := o.each(metric.PublishFailures, "Sum", o.publishers())
	for _, f := range o.publishers() {
		if f != "tasks" { // announces under new ids
			repeated = append(repeated, o.own(metric.Duplicates, "Sum", f+", published before", map[string]*string{metric.DimensionFunction: str(f)}))
		}
	}
	return append(all, o.graph("Publications that failed, and repeated ones, a minute", third, repeated...))
}

func (o *Operations) oneFunction() []awscloudwatch.IWidget {
	of := func(name, statistic string) awscloudwatch.IMetric {
		return amazon("Lambda", name, statistic, "FunctionName", str(noFunction))
	}
	return []awscloudwatch.IWidget{
		o.graph("One function: calls, errors, throttles, a minute", third, of("Invocations", "Sum"), of("Errors", "Sum"), of("Throttles", "Sum")),
		o.graph("One function: p50, p99, longest, ms", third, of("Duration", "p50"), of("Duration", "p99"), of("Duration", "Maximum")),
		o.graph("One function: running at once", third, of("ConcurrentExecutions", "Maximum")),
	}
}

func (o *Operations) data() []awscloudwatch.IWidget {
	t := o.app.Table
	tasks := func(name, label string) []awscloudwatch.IMetric {
		var all []awscloudwatch.IMetric
		for _, kind := range []string{"import", "export"} {
			all = append(all, o.own(name, "Sum", kind+"s "+label, map[string]*string{metric.DimensionFunction: str("tasks"), "kind": str(kind)}))
		}
		return all
	}
	ended := append(tasks(metric.TasksCompleted, "done"), tasks(metric.TasksFailed, "failed")...)
	return []awscloudwatch.IWidget{
		o.graph("Table: units a minute; refused", half, t.MetricConsumedReadCapacityUnits(minutely("Sum")), t.MetricConsumedWriteCapacityUnits(minutely("Sum")),
			o.tableMetric("ReadThrottleEvents"), o.tableMetric("WriteThrottleEvents")),
		o.graph("Stream: age of the oldest change that was not announced, ms", half, o.app.Outbox.Alias.Metric(str("IteratorAge"), minutely("Maximum"))),
		o.graph("Tasks: begun, done, failed, a minute", half, append(tasks(metric.TasksCreated, "begun"), ended...)...),
		o.graph("Queues: tasks that wait; given up: tasks, new tasks, publications", half, o.app.Work.MetricApproximateNumberOfMessagesVisible(minutely("Maximum")),
			o.app.WorkDead.MetricApproximateNumberOfMessagesVisible(minutely("Maximum")), o.app.PipeFailed.MetricApproximateNumberOfMessagesVisible(minutely("Maximum")),
			o.edge.BroadcastFailed.MetricApproximateNumberOfMessagesVisible(minutely("Maximum"))),
	}
}

func (o *Operations) logs() []awscloudwatch.IWidget {
	nodes := []awslogs.LogGroup{o.edge.NodeLogs}
	return []awscloudwatch.IWidget{
		o.table("Recent errors and warnings of nodes", nodes, "fields @timestamp, msg, error, @logStream", `filter level = "ERROR" or level = "WARN"`, "sort @timestamp desc", "limit 50"),
		o.table("Recent errors of functions", o.functionLogs(), "fields @timestamp, msg, error, @log", `filter level = "ERROR" or @message like /(?i)panic|Task timed out/`,
			"sort @timestamp desc", "limit 50"),
	}
}

func (o *Operations) functionLogs() []awslogs.LogGroup {
	var all []awslogs.LogGroup
	for _, f := range o.functions() {
		all = append(all, f.Logs)
	}
	return all
}
