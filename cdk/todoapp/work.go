package todoapp

import (
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambdaeventsources"
	"github.com/aws/aws-cdk-go/awscdk/v2/awspipes"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/edge"
	"tideline/shared/limit"
	"tideline/shared/todo/table"
)

// Times and bounds of the background work.
const (
	outboxTimeout  = 60 * time.Second
	outboxBatch    = 100
	outboxAttempts = 100 // all within limit.OutboxRecordAge; a Redis outage is a few attempts a minute
	workerTimeout  = limit.WorkerTimeout
	workReceives   = limit.WorkReceives // then it waits for a person in the dead-letter queue
	pipeAttempts   = 10
)

// visibility of a message is at least six times its function's timeout, so that a slow worker isn't overtaken by a second.
const visibility = 6 * workerTimeout

// declareOutbox: the table's stream, announced. Attempts and age are bounded, since one bad record would block its shard for a day; what
// was given up is kept whole in a bucket, and `make replay` announces its current state.
func (a *App) declareOutbox() {
	a.Failed = a.bucket("FailedRecords", failedDays)
	a.Outbox = a.edge.Function("Outbox", edge.FunctionProps{Build: "outbox", Publishes: true, Timeout: outboxTimeout,
		Environment: a.environment(map[string]*string{"FAILED_BUCKET": a.Failed.BucketName()}),
		Description: "announces what was written to the table, from its stream"})
	a.mayRead(a.Outbox)
	// Lambda itself writes them, as the function; a replay reads and deletes them.
	edge.Allow(a.Outbox.Lambda, []*string{a.Failed.ArnForObjects(str("*"))}, "s3:PutObject", "s3:GetObject", "s3:DeleteObject")
	edge.Allow(a.Outbox.Lambda, []*string{a.Failed.BucketArn()}, "s3:ListBucket")
	a.Table.GrantStreamRead(a.Outbox.Lambda)
	stream := a.Outbox.Alias.AddEventSourceMapping(str("Stream"), &awslambda.EventSourceMappingOptions{EventSourceArn: a.Table.TableStreamArn(),
		StartingPosition: awslambda.StartingPosition_TRIM_HORIZON, BatchSize: num(outboxBatch),
		BisectBatchOnError: yes, ReportBatchItemFailures: yes, RetryAttempts: num(outboxAttempts),
		MaxRecordAge: awscdk.Duration_Minutes(num(int(limit.OutboxRecordAge.Minutes()))),
		Filters: &[]*map[string]any{awslambda.FilterCriteria_Filter(&map[string]any{
			"eventName": awslambda.FilterRule_Or(str("INSERT"), str("MODIFY")), // removals are by TTL, of what was announced as deleted
			"dynamodb":  map[string]any{"NewImage": map[string]any{table.Kind: map[string]any{"S": []any{table.KindTodo}}}}})}})
	// A bucket keeps the records themselves; a queue would get only where they were, and they are gone after a day. By property, because
	// the CDK's class for it also grants the function everything on the bucket.
	stream.Node().DefaultChild().(awslambda.CfnEventSourceMapping).AddPropertyOverride(str("DestinationConfig.OnFailure.Destination"), a.Failed.BucketArn())
}

// declareTasks: the API inserts a task; the pipe takes it from the stream to the queue, so that nothing is written twice; the worker does it.
func (a *App) declareTasks() {
	a.Files = a.bucket("Files", fileDays)
	// The page sends and fetches big files by presigned links, straight from the browser: the bucket lets the page's origin in, the page's
	// policy lets its scripts out.
	a.edge.Connect(edge.BucketOrigin(a.Files))
	a.Files.AddCorsRule(&awss3.CorsRule{AllowedMethods: &[]awss3.HttpMethods{awss3.HttpMethods_PUT, awss3.HttpMethods_GET},
		AllowedOrigins: &[]*string{a.edge.URL}, AllowedHeaders: jsii.Strings("content-type", "content-length"), MaxAge: num(int(time.Hour.Seconds()))})
	env := a.environment(map[string]*string{"FILES_BUCKET": a.Files.BucketName()})
	a.Tasks = a.edge.Function("Tasks", edge.FunctionProps{Build: "tasks", Publishes: true, VerifiesTokens: true, Environment: env,
		Description: "REST API of background tasks"})
	a.Worker = a.edge.Function("Worker", edge.FunctionProps{Build: "tasks", Publishes: true, Environment: env, Timeout: workerTimeout, MemoryMiB: 512,
		Description: "does background tasks, and reports their progress"})
	for _, f := range []*edge.Function{a.Tasks, a.Worker} {
		a.mayWrite(f)
		edge.Allow(f.Lambda, []*string{a.Files.ArnForObjects(str("*"))}, "s3:PutObject", "s3:GetObject", "s3:DeleteObject")
	}
	a.edge.Route(a.Tasks, tasksPriority, "/api/tasks", "/api/tasks/*")
	a.WorkDead = a.edge.DeadLetters("WorkFailed")
	a.Work = awssqs.NewQueue(a.scope, str("Work"), &awssqs.QueueProps{Encryption: awssqs.QueueEncryption_SQS_MANAGED, EnforceSSL: yes,
		VisibilityTimeout: seconds(visibility), RetentionPeriod: awscdk.Duration_Days(num(4)),
		DeadLetterQueue: &awssqs.DeadLetterQueue{Queue: a.WorkDead, MaxReceiveCount: num(workReceives)}})
	a.Worker.Alias.AddEventSource(awslambdaeventsources.NewSqsEventSource(a.Work, &awslambdaeventsources.SqsEventSourceProps{
		BatchSize: num(1), ReportBatchItemFailures: yes}))
	a.declarePipe()
}

// declarePipe: new tasks from the table's stream to the queue. It is the stream's second reader, and DynamoDB allows no third.
func (a *App) declarePipe() {
	lost := a.edge.DeadLetters("PipeFailed")
	a.PipeFailed = lost
	role := awsiam.NewRole(a.scope, str("PipeRole"), &awsiam.RoleProps{Description: str("the pipe of new tasks"),
		AssumedBy: awsiam.NewServicePrincipal(str("pipes.amazonaws.com"), &awsiam.ServicePrincipalOpts{
			Conditions: &map[string]any{"StringEquals": map[string]any{"aws:SourceAccount": awscdk.Aws_ACCOUNT_ID()}}})})
	a.Table.GrantStreamRead(role)
	edge.Accept(role, "AwsSolutions-IAM5[Resource::*]", "dynamodb:ListStreams knows no resource")
	a.Work.GrantSendMessages(role)
	lost.GrantSendMessages(role)
	pattern := `{"eventName":["INSERT"],"dynamodb":{"NewImage":{"` + table.Kind + `":{"S":["` + table.KindTask + `"]}}}}`
	pipe := awspipes.NewCfnPipe(a.scope, str("TaskPipe"), &awspipes.CfnPipeProps{RoleArn: role.RoleArn(),
		Description: str("new tasks, from the table's stream to the worker's queue"),
		Source:      a.Table.TableStreamArn(), Target: a.Work.QueueArn(),
		SourceParameters: &awspipes.CfnPipe_PipeSourceParametersProperty{
			FilterCriteria: &awspipes.CfnPipe_FilterCriteriaProperty{Filters: []any{&awspipes.CfnPipe_FilterProperty{Pattern: str(pattern)}}},
			DynamoDbStreamParameters: &awspipes.CfnPipe_PipeSourceDynamoDBStreamParametersProperty{StartingPosition: str("TRIM_HORIZON"),
				BatchSize: num(10), MaximumRetryAttempts: num(pipeAttempts), MaximumRecordAgeInSeconds: num(int(limit.OutboxRecordAge.Seconds())),
				OnPartialBatchItemFailure: str("AUTOMATIC_BISECT"),
				DeadLetterConfig:          &awspipes.CfnPipe_DeadLetterConfigProperty{Arn: lost.QueueArn()}}},
		LogConfiguration: &awspipes.CfnPipe_PipeLogConfigurationProperty{Level: str("ERROR"),
			CloudwatchLogsLogDestination: &awspipes.CfnPipe_CloudwatchLogsLogDestinationProperty{LogGroupArn: a.edge.Logs(a.scope, "PipeLogs").LogGroupArn()}}})
	// Without its permissions the pipe would be created, stopped.
	pipe.Node().AddDependency(role)
}

func seconds(d time.Duration) awscdk.Duration {
	return awscdk.Duration_Seconds(jsii.Number(d.Seconds()))
}
