package edge

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/jsii-runtime-go"
)

// declareLogBuckets: one for the traffic, one for accesses to other buckets. The second's policy names those buckets, which may know the balancer's
// address, and the balancer waits for the first's policy: one bucket for both would be a circle.
func (e *Edge) declareLogBuckets() {
	days := trafficLogDays
	if e.props.Protect {
		days = trafficLogProd
	}
	declare := func(id, prefix string) awss3.Bucket {
		return awss3.NewBucket(e, str(id), e.Private(&awss3.BucketProps{ServerAccessLogsBucket: e.BucketLogs, ServerAccessLogsPrefix: str(prefix), LifecycleRules: &[]*awss3.LifecycleRule{{
			Expiration: awscdk.Duration_Days(num(days)), AbortIncompleteMultipartUploadAfter: awscdk.Duration_Days(num(1))}}}))
	}
	e.BucketLogs = declare("BucketLogs", "")
	e.logs = declare("TrafficLogs", "traffic/")
	if e.props.Network.VPCID == "" {
		awsec2.NewFlowLog(e, str("RefusedTraffic"), &awsec2.FlowLogProps{
			ResourceType: awsec2.FlowLogResourceType_FromVpc(e.VPC), TrafficType: awsec2.FlowLogTrafficType_REJECT,
			Destination: awsec2.FlowLogDestination_ToS3(e.logs, str("refused"), nil)})
	}
}

// Private completes the props of a bucket: encrypted, TLS only, no public access; kept or emptied with the stack as Props.Protect says.
func (e *Edge) Private(p *awss3.BucketProps) *awss3.BucketProps {
	p.Encryption = awss3.BucketEncryption_S3_MANAGED
	p.BlockPublicAccess = awss3.BlockPublicAccess_BLOCK_ALL()
	p.EnforceSSL = yes
	p.MinimumTLSVersion = num(1.2)
	p.RemovalPolicy = e.Removal()
	if !e.props.Protect {
		p.AutoDeleteObjects = yes
	}
	return p
}

// Protected is Props.Protect.
func (e *Edge) Protected() bool { return e.props.Protect }

// Removal is what happens to data when the stack goes.
func (e *Edge) Removal() awscdk.RemovalPolicy {
	if e.props.Protect {
		return awscdk.RemovalPolicy_RETAIN
	}
	return awscdk.RemovalPolicy_DESTROY
}

// Table completes the props of a table: on demand, with point-in-time recovery; kept or deleted with the stack as Props.Protect says.
func (e *Edge) Table(p *awsdynamodb.TableProps) *awsdynamodb.TableProps {
	p.BillingMode = awsdynamodb.BillingMode_PAY_PER_REQUEST
	p.PointInTimeRecoverySpecification = &awsdynamodb.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: yes}
	p.DeletionProtection, p.RemovalPolicy = jsii.Bool(e.props.Protect), e.Removal()
	return p
}

// Text is a string attribute of a table.
func Text(name string) *awsdynamodb.Attribute {
	return &awsdynamodb.Attribute{Name: str(name), Type: awsdynamodb.AttributeType_STRING}
}
