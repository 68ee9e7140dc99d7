package operations

import (
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/jsii-runtime-go"
)

// query is one that CloudWatch Logs Insights offers under Saved queries. Words in capitals are for the reader to replace.
type query struct {
	name   string
	groups []awslogs.LogGroup
	lines  []string
}

// declareQueries: what one asks the logs at three in the morning, so that nobody has to know the fields by heart.
func (o *Operations) declareQueries() {
	nodes := []awslogs.LogGroup{o.edge.NodeLogs}
	functions := o.functionLogs()
	all := slices.Concat(nodes, functions)
	for _, q := range []query{
		{"Errors", all, []string{`filter level = "ERROR" or @message like /(?i)panic|Task timed out/`, "fields @timestamp, @log, msg, error, @logStream", "sort @timestamp desc", "limit 200"}},
		{"Errors by kind", all, []string{`filter level = "ERROR" or level = "WARN"`, "stats count(*) as times, latest(error) as last by msg", "sort times desc"}},
		{"One user's connections", nodes, []string{`filter user = "USER"`, "fields @timestamp, msg, client, remote, code, reason, @logStream", "sort @timestamp desc", "limit 500"}},
		{"One client", nodes, []string{`filter client = "CLIENT"`, "fields @timestamp, level, msg, user, remote, code, reason, error, @logStream", "sort @timestamp", "limit 500"}},
		{"One trace", all, []string{`filter trace_id = "TRACE"`, "fields @timestamp, @log, level, msg, error, @message", "sort @timestamp", "limit 500"}},
		{"Disconnects by code", nodes, []string{`filter msg = "disconnect"`, "stats count(*) as times by code, reason, bin(5m)", "sort times desc"}},
		{"Slow consumers", nodes, []string{`filter msg = "disconnect" and code = 3008`, "stats count(*) as times by user, remote", "sort times desc", "limit 100"}},
		{"Continuity lost", nodes, []string{`filter msg like /continuity lost/`, "stats count(*) as times, latest(@timestamp) as last by channel", "sort times desc", "limit 100"}},
		{"Drains and ends of nodes", nodes, []string{`filter msg like /node ready|drain|drained|node stopped|shed connections/`, "fields @timestamp, msg, reason, connections, @logStream",
			"sort @timestamp desc", "limit 200"}},
		{"Refused at the door", nodes, []string{`filter msg in ["token refused", "upgrade refused", "frame refused", "subscription token refused"]`, "stats count(*) as times by msg, remote, error", "sort times desc",
			"limit 100"}},
		{"Slowest calls of functions", functions, []string{`filter @type = "REPORT"`, "fields @timestamp, @log, @duration, @initDuration, @maxMemoryUsed / 1048576 as MiB, @requestId", "sort @duration desc", "limit 50"}},
	} {
		id := strings.ReplaceAll(strings.ReplaceAll(q.name, " ", ""), "'", "")
		var groups []any
		for _, g := range q.groups {
			groups = append(groups, g.LogGroupName())
		}
		awslogs.NewCfnQueryDefinition(o.scope, str("Query"+id), &awslogs.CfnQueryDefinitionProps{LogGroupNames: &groups, QueryString: jsii.String(strings.Join(q.lines, "\n| ")),
			Name: str("tideline-" + o.edge.Stage() + "/" + q.name)})
	}
}
