// Command cdk declares everything that Tideline runs on AWS.
package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	_ "github.com/aws/aws-cdk-go/awscdk/v2/awscloudfront"
	_ "github.com/aws/aws-cdk-go/awscdk/v2/awsautoscaling"
	_ "github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	_ "github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	_ "github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	_ "github.com/aws/aws-cdk-go/awscdk/v2/awselasticache"
	"github.com/aws/jsii-runtime-go"
)

func main() {
	defer jsii.Close()
	app := awscdk.NewApp(nil)
	s := awscdk.NewStack(app, jsii.String("tideline-dev"), nil)
	awsec2.NewVpc(s, jsii.String("vpc"), nil)
	app.Synth(nil)
}
