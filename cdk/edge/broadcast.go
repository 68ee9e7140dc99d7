package edge

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventstargets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambdadestinations"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssnssubscriptions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"

	"tideline/shared/limit"
)

// declareBroadcast: one function that publishes for everything that is not Go or not ours, by four doors: invoke, EventBridge, SNS, URL.
func (e *Edge) declareBroadcast() {
	e.Broadcast = e.Function("Broadcast", FunctionProps{Build: "broadcast", Publishes: true,
		Description: "publishes on channels for other services: by invoke, event, topic or URL"})
	failed := e.DeadLetters("BroadcastFailed")
	e.BroadcastFailed = failed
	// The same event may come twice; its id makes the publications idempotent for limit.IdempotencyTTL, so nothing older is delivered.
	e.Broadcast.Alias.ConfigureAsyncInvoke(&awslambda.EventInvokeConfigOptions{MaxEventAge: span(limit.OutboxRecordAge), RetryAttempts: num(2),
		OnFailure: awslambdadestinations.NewSqsDestination(failed)})
	rule := awsevents.NewRule(e, str("BroadcastEvents"), &awsevents.RuleProps{
		Description:  str("events of this stage that are to be published"),
		EventPattern: &awsevents.EventPattern{Source: jsii.Strings(EventSource(e.props.Stage)), DetailType: jsii.Strings(BroadcastDetailType)}})
	rule.AddTarget(awseventstargets.NewLambdaFunction(e.Broadcast.Alias, &awseventstargets.LambdaFunctionProps{
		DeadLetterQueue: failed, RetryAttempts: num(8), MaxEventAge: span(limit.OutboxRecordAge)}))
	e.Topic = awssns.NewTopic(e, str("BroadcastTopic"), &awssns.TopicProps{EnforceSSL: yes,
		DisplayName: str("Tideline broadcast, stage " + e.props.Stage)})
	e.Topic.AddSubscription(awssnssubscriptions.NewLambdaSubscription(e.Broadcast.Alias, &awssnssubscriptions.LambdaSubscriptionProps{DeadLetterQueue: failed}))
	Accept(e.Broadcast.Alias, "CloudFormation-Validate::W3694", "SNS delivers to an alias as to a function; the rule knows only functions")
	url := e.Broadcast.Alias.AddFunctionUrl(&awslambda.FunctionUrlOptions{AuthType: awslambda.FunctionUrlAuthType_AWS_IAM})
	e.declarePublisher(url)
}

// declarePublisher: the policy that other stacks attach to whoever shall publish.
func (e *Edge) declarePublisher(url awslambda.FunctionUrl) {
	stack := awscdk.Stack_Of(e)
	allow := func(conditions map[string]any, resource *string, actions ...string) awsiam.PolicyStatement {
		p := &awsiam.PolicyStatementProps{Actions: jsii.Strings(actions...), Resources: &[]*string{resource}}
		if conditions != nil {
			p.Conditions = &conditions
		}
		return awsiam.NewPolicyStatement(p)
	}
	bus := stack.FormatArn(&awscdk.ArnComponents{Service: str("events"), Resource: str("event-bus"), ResourceName: str("default")})
	e.Publisher = awsiam.NewManagedPolicy(e, str("Publisher"), &awsiam.ManagedPolicyProps{
		Description: str("may publish on channels of Tideline, stage " + e.props.Stage),
		Statements: &[]awsiam.PolicyStatement{
			allow(nil, e.Broadcast.Alias.FunctionArn(), "lambda:InvokeFunction"),
			allow(map[string]any{"StringEquals": map[string]any{"lambda:FunctionUrlAuthType": "AWS_IAM"}}, e.Broadcast.Alias.FunctionArn(), "lambda:InvokeFunctionUrl"),
			allow(map[string]any{"StringEquals": map[string]any{"events:source": EventSource(e.props.Stage), "events:detail-type": BroadcastDetailType}}, bus, "events:PutEvents"),
			allow(nil, e.Topic.TopicArn(), "sns:Publish"),
		}})
	e.BroadcastURL = url.Url()
}

// DeadLetters is a queue for what failed: encrypted, TLS only, kept for 14 days, the most that SQS keeps.
func (e *Edge) DeadLetters(id string) awssqs.Queue {
	q := awssqs.NewQueue(e, str(id), &awssqs.QueueProps{Encryption: awssqs.QueueEncryption_SQS_MANAGED, EnforceSSL: yes,
		RetentionPeriod: awscdk.Duration_Days(num(14)), RemovalPolicy: e.Removal()})
	Accept(q, "AwsSolutions-SQS3", "this is itself the queue for failed messages")
	return q
}
