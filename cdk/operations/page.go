package operations

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatchactions"

	"tideline/shared/metric"
)

// Times of the suppressor, in seconds.
const (
	suppressorWait  = 60  // the pager waits this long for the suppressor, which is evaluated once a minute
	suppressorAfter = 180 // and this long after a deployment, for the alarms of its last minutes to end
)

// declarePage: one alarm for the pager, for what hurts users; the others wait for the morning. It is quiet while a deployment is rolling out:
// make deploy says so twice a minute, as long as CloudFormation updates the stack and no longer than an hour. A deployment that is rolled back, one
// that nobody watches, and one whose watcher has died page as if there were none.
func (o *Operations) declarePage() {
	suppressor := awscloudwatch.NewAlarm(o.scope, str("Deploying"), &awscloudwatch.AlarmProps{Metric: o.own(metric.CloudDeploying, "Maximum", "", nil),
		Threshold: num(1), ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
		EvaluationPeriods: num(2), DatapointsToAlarm: num(1), TreatMissingData: fine, // nobody says that anything is being deployed
		AlarmDescription: str("a deployment is rolling out, so that Page is quiet. " + o.edge.Runbook("Deploying"))})
	rules := make([]awscloudwatch.IAlarmRule, len(o.pages))
	for i, a := range o.pages {
		rules[i] = awscloudwatch.AlarmRule_FromAlarm(a, awscloudwatch.AlarmState_ALARM)
	}
	o.Page = awscloudwatch.NewCompositeAlarm(o.scope, str("Page"), &awscloudwatch.CompositeAlarmProps{AlarmRule: awscloudwatch.AlarmRule_AnyOf(rules...),
		ActionsSuppressor: suppressor, ActionsSuppressorWaitPeriod: awscdk.Duration_Seconds(num(suppressorWait)),
		ActionsSuppressorExtensionPeriod: awscdk.Duration_Seconds(num(suppressorAfter)),
		AlarmDescription:                 str("users of Tideline, stage " + o.edge.Stage() + ", are hurt now. " + o.edge.Runbook("Page"))})
	o.Page.AddAlarmAction(awscloudwatchactions.NewSnsAction(o.Topic))
	o.alarms = append([]awscloudwatch.IAlarm{o.Page, suppressor}, o.alarms...)
}
