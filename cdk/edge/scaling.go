package edge

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsautoscaling"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"

	"tideline/shared/limit"
	"tideline/shared/metric"
)

// declareScaling: enough nodes for the connections, and more when their processors are busy.
func (e *Edge) declareScaling() {
	n := e.props.Nodes.withDefaults()
	// A custom metric that falls as instances are added. Draining nodes stop sending it, so they don't pull the mean down.
	awsautoscaling.NewCfnScalingPolicy(e, str("ConnectionsPolicy"), &awsautoscaling.CfnScalingPolicyProps{
		AutoScalingGroupName: e.Group.AutoScalingGroupName(), PolicyType: str("TargetTrackingScaling"),
		TargetTrackingConfiguration: &awsautoscaling.CfnScalingPolicy_TargetTrackingConfigurationProperty{TargetValue: num(n.ConnectionsPerNode),
			CustomizedMetricSpecification: &awsautoscaling.CfnScalingPolicy_CustomizedMetricSpecificationProperty{
				Namespace: str(metric.Namespace(e.props.Stage)), MetricName: str(metric.CloudConnections), Statistic: str("Average"),
				Period: num(limit.MetricsInterval.Seconds()),
				Dimensions: []any{&awsautoscaling.CfnScalingPolicy_MetricDimensionProperty{
					Name: str(metric.DimensionGroup), Value: e.Group.AutoScalingGroupName()}}}}})
	awsautoscaling.NewCfnScalingPolicy(e, str("ProcessorPolicy"), &awsautoscaling.CfnScalingPolicyProps{
		AutoScalingGroupName: e.Group.AutoScalingGroupName(), PolicyType: str("TargetTrackingScaling"),
		TargetTrackingConfiguration: &awsautoscaling.CfnScalingPolicy_TargetTrackingConfigurationProperty{TargetValue: num(cpuTarget),
			// Out only: an idle processor says nothing about the sockets that a node holds.
			DisableScaleIn: true,
			PredefinedMetricSpecification: &awsautoscaling.CfnScalingPolicy_PredefinedMetricSpecificationProperty{
				PredefinedMetricType: str("ASGAverageCPUUtilization")}}})
}

// declareRolloutAlarms: what a bad version shows within minutes. An alarm that is on when a refresh begins makes it fail at once.
func (e *Edge) declareRolloutAlarms() {
	minute := awscdk.Duration_Minutes(num(1))
	sum := &awscloudwatch.MetricOptions{Period: minute, Statistic: str("Sum")}
	errors := e.Targets.Metrics().HttpCodeTarget(awselasticloadbalancingv2.HttpCodeTarget_TARGET_5XX_COUNT, sum)
	unhealthy := e.Targets.Metrics().UnhealthyHostCount(&awscloudwatch.MetricOptions{Period: minute, Statistic: str("Minimum")})
	e.RolloutAlarms = []awscloudwatch.Alarm{
		awscloudwatch.NewAlarm(e, str("NodeErrors"), &awscloudwatch.AlarmProps{Metric: errors, Threshold: num(50), EvaluationPeriods: num(3),
			DatapointsToAlarm: num(2), TreatMissingData: awscloudwatch.TreatMissingData_NOT_BREACHING, // no errors, no data points
			AlarmDescription: str("nodes answer requests with errors. " + e.Runbook("NodeErrors"))}),
		awscloudwatch.NewAlarm(e, str("NodesUnhealthy"), &awscloudwatch.AlarmProps{Metric: unhealthy, Threshold: num(1),
			ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_OR_EQUAL_TO_THRESHOLD, EvaluationPeriods: num(5), DatapointsToAlarm: num(5),
			TreatMissingData: awscloudwatch.TreatMissingData_NOT_BREACHING, // the metric exists only while targets are registered
			AlarmDescription: str("a node has been unhealthy for 5 minutes. " + e.Runbook("NodesUnhealthy"))}),
	}
}
