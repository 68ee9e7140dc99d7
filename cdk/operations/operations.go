// Package operations tells people what a deployment is doing: alarms, one of which pages, a dashboard, and saved queries of its logs.
//
// Everything it names is either a metric of AWS's own or one of shared/metric. docs/operations.md is the runbook: it follows the dashboard row by
// row, and has a heading for each alarm, which the alarm's description names.
package operations

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssnssubscriptions"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/edge"
	"tideline/cdk/todoapp"
)

var (
	str = jsii.String
	yes = jsii.Bool(true)
)

func num(n float64) *float64 { return jsii.Number(n) }

// Props of New.
type Props struct {
	Email string       // address that alarms are sent to; empty: nobody subscribes to the topic yet
	App   *todoapp.App // nil for the edge alone
}

// Operations is what was declared.
type Operations struct {
	Topic     awssns.Topic
	Page      awscloudwatch.CompositeAlarm
	Dashboard awscloudwatch.Dashboard

	scope  constructs.Construct
	edge   *edge.Edge
	app    *todoapp.App
	alarms []awscloudwatch.IAlarm // in the dashboard's order
	pages  []awscloudwatch.IAlarm // those that mean that users are hurt
	marks  []*awscloudwatch.VerticalAnnotation
}

// New declares topic, alarms, dashboard and queries for an edge and what runs on it.
func New(scope constructs.Construct, id string, e *edge.Edge, p Props) *Operations {
	o := &Operations{scope: constructs.NewConstruct(scope, str(id)), edge: e, app: p.App}
	o.Topic = awssns.NewTopic(o.scope, str("Alarms"), &awssns.TopicProps{EnforceSSL: yes, DisplayName: str("Tideline alarms, stage " + e.Stage())})
	if p.Email != "" {
		o.Topic.AddSubscription(awssnssubscriptions.NewEmailSubscription(str(p.Email), nil))
	}
	o.declareAlarms()
	o.declarePage()
	o.declareMarks()
	o.declareDashboard()
	o.declareQueries()
	return o
}

// functions of the edge and the application, by name.
func (o *Operations) functions() []function {
	all := []function{{"session", o.edge.Session}, {"broadcast", o.edge.Broadcast}, {"keys", o.edge.Keys}}
	if o.app != nil {
		all = append(all, function{"todos", o.app.Todos}, function{"tasks", o.app.Tasks}, function{"worker", o.app.Worker}, function{"outbox", o.app.Outbox})
	}
	return all
}

// publishers and servers are the names that functions measure under. The worker is the tasks function's second role, and measures under its name.
func (o *Operations) publishers() []string {
	if o.app == nil {
		return []string{"broadcast"}
	}
	return []string{"broadcast", "todos", "tasks", "outbox"}
}

func (o *Operations) servers() []string {
	if o.app == nil {
		return []string{"session"}
	}
	return []string{"session", "todos", "tasks"}
}

type function struct {
	name string
	*edge.Function
}
