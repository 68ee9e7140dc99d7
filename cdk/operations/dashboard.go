package operations

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/jsii-runtime-go"

	"tideline/shared/metric"
)

// Widths of widgets, in the dashboard's 24 columns.
const (
	full    = 24
	half    = 12
	third   = 8
	widgetH = 6
)

// declareDashboard answers, top to bottom: is anyone hurt, where, why.
func (o *Operations) declareDashboard() {
	alarms := make([]interfacesawscloudwatch.IAlarmRef, len(o.alarms))
	for i, a := range o.alarms {
		alarms[i] = a
	}
	rows := [][]awscloudwatch.IWidget{
		{awscloudwatch.NewAlarmStatusWidget(&awscloudwatch.AlarmStatusWidgetProps{Title: str("Alarms"), Alarms: &alarms, Width: num(full), Height: num(4)})},
		o.users(), o.delivery(), o.balancer(), o.nodes(), o.redis(), o.lambdas(), o.measured(),
	}
	if o.app != nil {
		rows = append(rows, o.tables())
	}
	rows = append(rows, []awscloudwatch.IWidget{awscloudwatch.NewLogQueryWidget(&awscloudwatch.LogQueryWidgetProps{Title: str("Recent errors of nodes"),
		LogGroupNames: &[]*string{o.edge.NodeLogs.LogGroupName()}, Width: num(full), Height: num(widgetH), View: awscloudwatch.LogQueryVisualizationType_TABLE,
		QueryLines: jsii.Strings("fields @timestamp, msg, error, @logStream", `filter level = "ERROR"`, "sort @timestamp desc", "limit 50")})})
	widgets := make([]*[]awscloudwatch.IWidget, len(rows))
	for i := range rows {
		widgets[i] = &rows[i]
	}
	o.Dashboard = awscloudwatch.NewDashboard(o.scope, str("Dashboard"), &awscloudwatch.DashboardProps{
		DashboardName: str("tideline-" + o.edge.Stage()), DefaultInterval: awscdk.Duration_Hours(num(3)), Widgets: &widgets})
}

func graph(title string, width float64, left ...awscloudwatch.IMetric) awscloudwatch.IWidget {
	return awscloudwatch.NewGraphWidget(&awscloudwatch.GraphWidgetProps{Title: str(title), Left: &left, Width: num(width), Height: num(widgetH),
		LiveData: yes, LeftYAxis: &awscloudwatch.YAxisProps{Min: num(0)}})
}

// own is a metric that our code sends, in the stage's namespace; the label is its dimension's value, or its name where it has none.
func (o *Operations) own(name, statistic, label string, dimensions map[string]*string) awscloudwatch.IMetric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{Namespace: str(metric.Namespace(o.edge.Stage())), MetricName: str(name),
		DimensionsMap: &dimensions, Statistic: str(statistic), Label: str(label), Period: awscdk.Duration_Minutes(num(1))})
}

func (o *Operations) users() []awscloudwatch.IWidget {
	connections := func(statistic, label string) awscloudwatch.IMetric {
		return o.own(metric.CloudConnections, statistic, label, map[string]*string{metric.DimensionGroup: o.edge.Group.AutoScalingGroupName()})
	}
	return []awscloudwatch.IWidget{
		graph("Connections", half, connections("Sum", "all nodes"), connections("Average", "a node"), connections("Maximum", "the fullest node")),
		graph("Nodes", half, o.edge.Targets.Metrics().HealthyHostCount(minutely("Minimum")), o.edge.Targets.Metrics().UnhealthyHostCount(minutely("Maximum"))),
	}
}

// delivery is what nodes say of their messages, all nodes together.
func (o *Operations) delivery() []awscloudwatch.IWidget {
	sums := func(names ...string) []awscloudwatch.IMetric {
		all := make([]awscloudwatch.IMetric, len(names))
		for i, name := range names {
			all[i] = o.own(name, "Sum", name, nil)
		}
		return all
	}
	return []awscloudwatch.IWidget{
		graph("Publish to deliver, seconds", third, o.own(metric.CloudLatency, "p50", "p50", nil), o.own(metric.CloudLatency, "p99", "p99", nil)),
		graph("Messages a minute", third, sums(metric.CloudDeliveries, metric.CloudPublications)...),
		graph("What should be near 0, a minute", third, sums(metric.CloudErrors, metric.CloudDrops, metric.CloudGaps, metric.CloudFailedRecoveries,
			metric.CloudSlowConsumers, metric.CloudResubscribes)...),
	}
}

// measured is what functions say of themselves; the worker is the tasks function's second role, and measures under its name.
func (o *Operations) measured() []awscloudwatch.IWidget {
	publishers, servers := []string{"broadcast"}, []string{"session"}
	if o.app != nil {
		publishers, servers = append(publishers, "todos", "tasks", "outbox"), append(servers, "todos", "tasks")
	}
	each := func(name, statistic string, functions []string) []awscloudwatch.IMetric {
		all := make([]awscloudwatch.IMetric, len(functions))
		for i, f := range functions {
			all[i] = o.own(name, statistic, f, map[string]*string{metric.DimensionFunction: str(f)})
		}
		return all
	}
	return []awscloudwatch.IWidget{
		graph("Publications that failed, a minute", third, each(metric.PublishFailures, "Sum", publishers)...),
		graph("Requests answered with 5xx, a minute", third, each(metric.RequestErrors, "Sum", servers)...),
		graph("Requests: p99, seconds", third, each(metric.RequestLatency, "p99", servers)...),
	}
}

func (o *Operations) balancer() []awscloudwatch.IWidget {
	m := o.edge.Balancer.Metrics()
	return []awscloudwatch.IWidget{
		graph("Requests a minute", third, m.RequestCount(minutely("Sum")), m.NewConnectionCount(minutely("Sum"))),
		graph("Errors a minute: the balancer's, the nodes'", third, m.HttpCodeElb(awselasticloadbalancingv2.HttpCodeElb_ELB_5XX_COUNT, minutely("Sum")),
			o.edge.Targets.Metrics().HttpCodeTarget(awselasticloadbalancingv2.HttpCodeTarget_TARGET_5XX_COUNT, minutely("Sum"))),
		graph("Open connections (each counts on both sides)", third, m.ActiveConnectionCount(minutely("Sum"))),
	}
}

func (o *Operations) nodes() []awscloudwatch.IWidget {
	ec2 := func(name, statistic string) awscloudwatch.IMetric {
		return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{Namespace: str("AWS/EC2"), MetricName: str(name), Statistic: str(statistic),
			DimensionsMap: &map[string]*string{"AutoScalingGroupName": o.edge.Group.AutoScalingGroupName()}, Period: awscdk.Duration_Minutes(num(1))})
	}
	return []awscloudwatch.IWidget{graph("Nodes: processor, percent", half, ec2("CPUUtilization", "Average"), ec2("CPUUtilization", "Maximum")),
		graph("Nodes: bytes a minute", half, ec2("NetworkIn", "Sum"), ec2("NetworkOut", "Sum"))}
}

func (o *Operations) redis() []awscloudwatch.IWidget {
	var memory, processor, connections []awscloudwatch.IMetric
	for _, member := range o.edge.CacheMembers() {
		memory = append(memory, cacheMetric("DatabaseMemoryUsagePercentage", member, "Maximum"))
		processor = append(processor, cacheMetric("EngineCPUUtilization", member, "Average"))
		connections = append(connections, cacheMetric("CurrConnections", member, "Maximum"), cacheMetric("ReplicationLag", member, "Maximum"))
	}
	if name := o.edge.ServerlessCache(); name != nil {
		memory = append(memory, serverlessMetric("BytesUsedForCache", name, "Maximum"))
		processor = append(processor, serverlessMetric("ElastiCacheProcessingUnits", name, "Sum"))
		connections = append(connections, serverlessMetric("CurrConnections", name, "Maximum"))
	}
	if len(memory) == 0 {
		return []awscloudwatch.IWidget{awscloudwatch.NewTextWidget(&awscloudwatch.TextWidgetProps{Markdown: str("Redis is not this stack's: " + *o.edge.RedisEndpoint()), Width: num(full), Height: num(1)})}
	}
	return []awscloudwatch.IWidget{graph("Redis: memory", third, memory...), graph("Redis: processor", third, processor...), graph("Redis: connections, lag", third, connections...)}
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
	return []awscloudwatch.IWidget{graph("Functions: calls a minute", third, calls...), graph("Functions: errors a minute", third, errors...),
		graph("Functions: p99, ms", third, duration...)}
}

func (o *Operations) tables() []awscloudwatch.IWidget {
	t := o.app.Table
	return []awscloudwatch.IWidget{
		graph("Table: units a minute", third, t.MetricConsumedReadCapacityUnits(minutely("Sum")), t.MetricConsumedWriteCapacityUnits(minutely("Sum"))),
		graph("Stream: age of the oldest change that was not announced, ms", third, o.app.Outbox.Alias.Metric(str("IteratorAge"), minutely("Maximum"))),
		graph("Tasks: waiting, given up", third, o.app.Work.MetricApproximateNumberOfMessagesVisible(minutely("Maximum")),
			o.app.WorkDead.MetricApproximateNumberOfMessagesVisible(minutely("Maximum"))),
	}
}
