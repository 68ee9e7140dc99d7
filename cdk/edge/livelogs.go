package edge

import (
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"
)

// LiveLogs lets operators watch CloudWatch log groups as channels (logs:<group>). The zero value doesn't.
type LiveLogs struct {
	// On opens the groups that the edge and its application make.
	On bool
	// Others are more of them, by name; a '*' at the end stands for the rest of a name.
	Others []string
}

// watchedGroups are the log groups that nodes may tail, as resources of a policy, with their streams and without: those that Logs has made by the end of synthesis,
// and others by name.
type watchedGroups struct {
	own    []awslogs.LogGroup
	others []*string
}

// Produce implements awscdk.IStableListProducer.
func (w *watchedGroups) Produce() *[]*string {
	arns := slices.Clone(w.others)
	for _, g := range w.own {
		arns = append(arns, g.LogGroupArn(), groupARN(g, *g.LogGroupName()))
	}
	return &arns
}

func groupARN(scope constructs.IConstruct, name string) *string {
	return awscdk.Stack_Of(scope).FormatArn(&awscdk.ArnComponents{Service: str("logs"), Resource: str("log-group"),
		ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME, ResourceName: str(name)})
}

// grantLiveLogs lets nodes tail the groups that operators may watch, and no others. To find a group's ARN by its name is a question about the account's
// groups; its answer is names.
func (e *Edge) grantLiveLogs(role awsiam.Role) {
	if !e.props.LiveLogs.On {
		return
	}
	for _, name := range e.props.LiveLogs.Others {
		e.watched.others = append(e.watched.others, groupARN(e, name))
		if !strings.HasSuffix(name, "*") {
			e.watched.others = append(e.watched.others, groupARN(e, name+":*"))
		}
	}
	allow := func(action string, resources *[]*string) {
		role.AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{Actions: jsii.Strings(action), Resources: resources}))
	}
	allow("logs:DescribeLogGroups", &[]*string{groupARN(e, "*")})
	allow("logs:StartLiveTail", awscdk.Lazy_List(&e.watched, nil))
}
