// Command cdk declares everything that Tideline runs on AWS.
package main

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/jsii-runtime-go"
)

func main() {
	defer jsii.Close()
	app := awscdk.NewApp(nil)
	s := awscdk.NewStack(app, jsii.String("tideline-dev"), nil)
	awsec2.NewVpc(s, jsii.String("Network"), &awsec2.VpcProps{MaxAzs: jsii.Number(2), NatGateways: jsii.Number(0)})
	app.Synth(nil)
}
