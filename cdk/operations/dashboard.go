package operations

import (
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/aws-cdk-go/awscdk/v2/interfaces/interfacesawscloudwatch"
	"github.com/aws/jsii-runtime-go"
)

// Widths and heights of widgets, in the dashboard's grid of 24 columns.
const (
	full    = 24
	half    = 12
	third   = 8
	widgetH = 6
)

// row of the dashboard: its title is a heading of docs/operations.md.
type row struct {
	title, asks string
	widgets     []awscloudwatch.IWidget
}

// declareDashboard answers, top to bottom: is anyone hurt, where, why.
func (o *Operations) declareDashboard() {
	alarms := make([]interfacesawscloudwatch.IAlarmRef, len(o.alarms))
	for i, a := range o.alarms {
		alarms[i] = a
	}
	rows := []row{
		{"Alarms", "Is anyone hurt?", []awscloudwatch.IWidget{
			awscloudwatch.NewAlarmStatusWidget(&awscloudwatch.AlarmStatusWidgetProps{Title: str("Alarms"), Alarms: &alarms, Width: num(full), Height: num(5)})}},
		{"Users", "How many are here, and how fast do they hear what happens?", o.users()},
		{"Losses", "What did not arrive as it should have?", o.losses()},
		{"Front", "Where? What browsers meet first", o.front()},
		{"Nodes", "Where? The machines that hold the sockets", o.nodes()},
		{"One node", "Choose it above", o.oneNode()},
		{"Redis", "Where? What carries every publication", o.redis()},
		{"Functions", "Where? REST, publishing, keys", o.lambdas()},
		{"One function", "Choose it above", o.oneFunction()},
	}
	if o.app != nil {
		rows = append(rows, row{"Data", "Where? The table, its stream, the queues", o.data()})
	}
	rows = append(rows, row{"Logs", "Why?", o.logs()})
	var widgets []*[]awscloudwatch.IWidget
	for _, r := range rows {
		title := awscloudwatch.NewTextWidget(&awscloudwatch.TextWidgetProps{Width: num(full), Height: num(1), Background: awscloudwatch.TextWidgetBackground_TRANSPARENT,
			Markdown: str(fmt.Sprintf("## %s: %s [What is normal, what to do](%s#%s)", r.title, r.asks, o.edge.RunbookPage(), strings.ReplaceAll(strings.ToLower(r.title), " ", "-")))})
		widgets = append(widgets, &[]awscloudwatch.IWidget{title}, &r.widgets)
	}
	o.Dashboard = awscloudwatch.NewDashboard(o.scope, str("Dashboard"), &awscloudwatch.DashboardProps{
		DashboardName: str("tideline-" + o.edge.Stage()), DefaultInterval: awscdk.Duration_Hours(num(3)), Widgets: &widgets, Variables: o.variables()})
	o.mark(o.Dashboard.Node().DefaultChild().(awscloudwatch.CfnDashboard))
}

// What stands where the chosen instance's id and the chosen function's name go; there are no such ones.
const (
	noInstance = "i-00000000000000000"
	noFunction = "the-chosen-function"
)

// variables stand in the place of a copy of their row for each node and each function. They are patterns and not properties: the query of the node's log follows,
// too, and the rows that show all functions beside each other don't. CloudWatch can't tell our instances from the account's others: all that have figures are offered.
func (o *Operations) variables() *[]awscloudwatch.IVariable {
	var functions []*awscloudwatch.VariableValue
	for _, f := range o.functions() {
		functions = append(functions, &awscloudwatch.VariableValue{Label: str(f.name), Value: f.Lambda.FunctionName()})
	}
	return &[]awscloudwatch.IVariable{
		awscloudwatch.NewDashboardVariable(&awscloudwatch.DashboardVariableOptions{Id: str("node"), Label: str("Node"), Type: awscloudwatch.VariableType_PATTERN,
			Value: str(noInstance), InputType: awscloudwatch.VariableInputType_SELECT, DefaultValue: awscloudwatch.DefaultValue_FIRST(),
			Values: awscloudwatch.Values_FromSearchComponents(&awscloudwatch.SearchComponents{Namespace: str("AWS/EC2"), Dimensions: jsii.Strings("InstanceId"),
				MetricName: str("CPUUtilization"), PopulateFrom: str("InstanceId")})}),
		awscloudwatch.NewDashboardVariable(&awscloudwatch.DashboardVariableOptions{Id: str("function"), Label: str("Function"), Type: awscloudwatch.VariableType_PATTERN,
			Value: str(noFunction), InputType: awscloudwatch.VariableInputType_SELECT, DefaultValue: awscloudwatch.DefaultValue_Value(functions[0].Value),
			Values: awscloudwatch.Values_FromValues(functions...)}),
	}
}

// graph is a line for each metric, and a vertical one for each of the last deployments.
func (o *Operations) graph(title string, width float64, left ...awscloudwatch.IMetric) awscloudwatch.IWidget {
	return awscloudwatch.NewGraphWidget(&awscloudwatch.GraphWidgetProps{Title: str(title), Left: &left, Width: num(width), Height: num(widgetH),
		LiveData: yes, LeftYAxis: &awscloudwatch.YAxisProps{Min: num(0)}, VerticalAnnotations: &o.marks})
}

// table is the answer to a query of logs.
func (o *Operations) table(title string, groups []awslogs.LogGroup, lines ...string) awscloudwatch.IWidget {
	names := make([]*string, len(groups))
	for i, g := range groups {
		names[i] = g.LogGroupName()
	}
	return awscloudwatch.NewLogQueryWidget(&awscloudwatch.LogQueryWidgetProps{Title: str(title), LogGroupNames: &names, Width: num(half), Height: num(widgetH),
		View: awscloudwatch.LogQueryVisualizationType_TABLE, QueryLines: jsii.Strings(lines...)})
}
