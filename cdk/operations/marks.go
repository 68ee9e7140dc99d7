package operations

import (
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"

	"tideline/cdk/settings"
)

// marked stands where the time of a deployment goes. The CDK takes no time that is known only when the stack is deployed.
func marked(i int) string { return fmt.Sprintf("0001-01-01T00:00:0%dZ", i) }

// declareMarks: a vertical line in every graph for each of the last deployments. When they were is not in the code, so that the same code makes the same
// template: the list is a parameter, which make deploy writes, and which a deployment that says nothing leaves as it was.
func (o *Operations) declareMarks() {
	awscdk.NewCfnParameter(awscdk.Stack_Of(o.scope), str(settings.MarksParameter), &awscdk.CfnParameterProps{Default: str(settings.Marks{}.String()),
		AllowedPattern: str(settings.MarksPattern), Description: str("times and versions of the last deployments, newest first; make deploy writes it"),
		ConstraintDescription: str(fmt.Sprintf("%d times and versions: 2026-11-22T18:30:00Z version,…", settings.MarksKept))})
	for i := range settings.MarksKept {
		o.marks = append(o.marks, &awscloudwatch.VerticalAnnotation{Date: str(marked(i)), Label: str(fmt.Sprintf("@version%d", i)), Color: awscloudwatch.Color_GREY()})
	}
}

// mark puts the times and versions of the parameter into a dashboard. Its body becomes one Fn::Sub, in which a value that comes up in every graph takes a few
// characters; as parts of the CDK's Fn::Join they would make the template larger than CloudFormation takes.
func (o *Operations) mark(d awscloudwatch.CfnDashboard) {
	stack := awscdk.Stack_Of(o.scope)
	values := map[string]*string{}
	var body strings.Builder
	parts := stack.Resolve(d.DashboardBody()).(map[string]any)["Fn::Join"].([]any)[1].([]any)
	for i, part := range parts {
		switch x := part.(type) {
		case string:
			body.WriteString(strings.ReplaceAll(x, "${", "${!"))
		default:
			body.WriteString("${" + reference(x, func() string {
				name := fmt.Sprintf("Part%d", i)
				values[name] = awscdk.Token_AsString(x, nil)
				return name
			}) + "}")
		}
	}
	text := body.String()
	all := awscdk.Fn_Split(str(","), awscdk.Fn_Ref(str(settings.MarksParameter)), nil)
	for i := range settings.MarksKept {
		mark := awscdk.Fn_Split(str(" "), awscdk.Fn_Select(num(float64(i)), all), nil)
		values[fmt.Sprintf("Time%d", i)], values[fmt.Sprintf("Version%d", i)] = awscdk.Fn_Select(num(0), mark), awscdk.Fn_Select(num(1), mark)
		text = strings.NewReplacer(marked(i), fmt.Sprintf("${Time%d}", i), fmt.Sprintf("@version%d", i), fmt.Sprintf("${Version%d}", i)).Replace(text)
	}
	d.SetDashboardBody(awscdk.Fn_Sub(str(text), &values))
}

// reference is what stands for an intrinsic function between the braces of Fn::Sub; other than the two that it knows by itself, it takes a name.
func reference(intrinsic any, name func() string) string {
	x, _ := intrinsic.(map[string]any)
	if id, ok := x["Ref"].(string); ok {
		return id
	}
	if parts, ok := x["Fn::GetAtt"].([]any); ok {
		return fmt.Sprint(parts[0], ".", parts[1])
	}
	return name()
}
