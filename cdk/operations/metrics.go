package operations

import (
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"

	"tideline/shared/metric"
)

// own is a metric that our code sends, in the stage's namespace; the label is its dimension's value, or its name where it has none.
func (o *Operations) own(name, statistic, label string, dimensions map[string]*string) awscloudwatch.IMetric {
	p := &awscloudwatch.MetricProps{Namespace: str(metric.Namespace(o.edge.Stage())), MetricName: str(name),
		DimensionsMap: &dimensions, Statistic: str(statistic), Period: awscdk.Duration_Minutes(num(1))}
	if label != "" {
		p.Label = str(label)
	}
	return awscloudwatch.NewMetric(p)
}

// connections is the figure that the group scales on.
func (o *Operations) connections(statistic, label string) awscloudwatch.IMetric {
	return o.own(metric.CloudConnections, statistic, label, map[string]*string{metric.DimensionGroup: o.edge.Group.AutoScalingGroupName()})
}

// each is one metric of several functions, by the name that they measure under.
func (o *Operations) each(name, statistic string, functions []string) []awscloudwatch.IMetric {
	all := make([]awscloudwatch.IMetric, len(functions))
	for i, f := range functions {
		all[i] = o.own(name, statistic, f, map[string]*string{metric.DimensionFunction: str(f)})
	}
	return all
}

// sum adds a count of several functions up. A function that says nothing counts as 0.
func (o *Operations) sum(name string, functions []string) awscloudwatch.IMetric {
	using, terms := map[string]awscloudwatch.IMetric{}, make([]string, len(functions))
	for i, m := range o.each(name, "Sum", functions) {
		id := fmt.Sprintf("m%d", i+1)
		using[id], terms[i] = m, "FILL("+id+",0)"
	}
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{Expression: str(strings.Join(terms, "+")), UsingMetrics: &using,
		Label: str(name), Period: awscdk.Duration_Minutes(num(1))})
}

// perSecond turns a count by the minute into a rate; id is unique in its graph.
func (o *Operations) perSecond(id, name, label string) awscloudwatch.IMetric {
	using := map[string]awscloudwatch.IMetric{id: o.own(name, "Sum", "", nil)}
	return awscloudwatch.NewMathExpression(&awscloudwatch.MathExpressionProps{Expression: str(id + "/PERIOD(" + id + ")"), UsingMetrics: &using,
		Label: str(label), Period: awscdk.Duration_Minutes(num(1))})
}

// amazon is a metric of an AWS service with one dimension.
func amazon(service, name, statistic, dimension string, value *string) awscloudwatch.Metric {
	return awscloudwatch.NewMetric(&awscloudwatch.MetricProps{Namespace: str("AWS/" + service), MetricName: str(name), Statistic: str(statistic),
		Period: awscdk.Duration_Minutes(num(1)), DimensionsMap: &map[string]*string{dimension: value}})
}

func cacheMetric(name string, member *string, statistic string) awscloudwatch.Metric {
	return amazon("ElastiCache", name, statistic, "CacheClusterId", member)
}

func serverlessMetric(name string, cache *string, statistic string) awscloudwatch.Metric {
	return amazon("ElastiCache", name, statistic, "clusterId", cache)
}

// tableMetric counts something of the application's table by the minute.
func (o *Operations) tableMetric(name string) awscloudwatch.Metric {
	return amazon("DynamoDB", name, "Sum", "TableName", o.app.Table.TableName())
}
