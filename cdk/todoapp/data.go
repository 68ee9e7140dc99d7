package todoapp

import (
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/edge"
	"tideline/shared/limit"
	"tideline/shared/todo/table"
)

var (
	str = jsii.String
	yes = jsii.Bool(true)
)

func num(n int) *float64 { return jsii.Number(float64(n)) }

// Lives of what only passes through, in days.
const (
	fileDays   = int(limit.FileTTL / (24 * time.Hour)) // imports and exports, longer than their tasks
	failedDays = 90                                    // records to be replayed
)

// declareTable: on demand, with a stream of both images and point-in-time recovery. Its layout is shared/todo/table's.
func (a *App) declareTable(p Props) {
	if p.TableName != "" {
		a.Table = awsdynamodb.Table_FromTableAttributes(a.scope, str("Table"), &awsdynamodb.TableAttributes{
			TableName: str(p.TableName), TableStreamArn: str(p.TableStreamARN), GrantIndexPermissions: yes})
		return
	}
	made := awsdynamodb.NewTable(a.scope, str("Table"), a.edge.Table(&awsdynamodb.TableProps{PartitionKey: edge.Text(table.PartitionKey),
		SortKey: edge.Text(table.SortKey), TimeToLiveAttribute: str(table.TTL), Stream: awsdynamodb.StreamViewType_NEW_AND_OLD_IMAGES}))
	for _, index := range [][2]string{{table.OrderIndex, table.OrderKey}, {table.StateIndex, table.StateKey}} {
		made.AddLocalSecondaryIndex(&awsdynamodb.LocalSecondaryIndexProps{IndexName: str(index[0]), SortKey: edge.Text(index[1]),
			ProjectionType: awsdynamodb.ProjectionType_ALL})
	}
	a.Table = made
}

// bucket is private and forgets its objects after some days.
func (a *App) bucket(id string, days int) awss3.Bucket {
	return awss3.NewBucket(a.scope, str(id), a.edge.Private(&awss3.BucketProps{
		ServerAccessLogsBucket: a.edge.BucketLogs, ServerAccessLogsPrefix: str(id + "/"),
		LifecycleRules: &[]*awss3.LifecycleRule{{Expiration: awscdk.Duration_Days(num(days)),
			AbortIncompleteMultipartUploadAfter: awscdk.Duration_Days(num(1))}}}))
}

// mayRead allows what a reader of single items and of lists calls; mayWrite adds conditional writes and transactions.
func (a *App) mayRead(f *edge.Function) {
	a.may(f, "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query")
}

func (a *App) mayWrite(f *edge.Function) {
	a.mayRead(f)
	a.may(f, "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:ConditionCheckItem")
}

func (a *App) may(f *edge.Function, actions ...string) {
	resources := []*string{a.Table.TableArn()}
	for _, index := range []string{table.OrderIndex, table.StateIndex} {
		resources = append(resources, str(*a.Table.TableArn()+"/index/"+index))
	}
	edge.Allow(f.Lambda, resources, actions...)
}

// environment of everything that uses the table.
func (a *App) environment(more map[string]*string) map[string]*string {
	env := map[string]*string{"TODO_TABLE": a.Table.TableName()}
	for k, v := range more {
		env[k] = v
	}
	return env
}

// declareTodos: the REST API of todos, and the answer to every other path below /api.
func (a *App) declareTodos() {
	a.Todos = a.edge.Function("Todos", edge.FunctionProps{Build: "todos", Publishes: true, VerifiesTokens: true, Environment: a.environment(nil),
		Description: "REST API of todos"})
	a.mayWrite(a.Todos)
	a.edge.Route(a.Todos, todosPriority, "/api/todos", "/api/todos/*", "/api/openapi.json", "/api/docs", "/api/docs/*")
	a.edge.Route(a.Todos, restPriority, "/api", "/api/*")
}
