package edge

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscertificatemanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudfront"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudfrontorigins"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3deployment"
	"github.com/aws/aws-cdk-go/awscdk/v2/awswafv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/customresources"
	"github.com/aws/jsii-runtime-go"

	"tideline/shared/limit"
)

// Front says how browsers reach the edge. The zero value is CloudFront, with its own name, before an internal load balancer.
type Front struct {
	// Public makes the load balancer face the internet, with Domain and CertificateARN of the stack's region. It can't change in a
	// stack's life.
	Public bool
	// Domain is a name of one's own; CertificateARN is then required, in us-east-1 for CloudFront.
	Domain         string
	CertificateARN string
	// WebACLARN attaches a web ACL: scope global for CloudFront, regional for a public balancer.
	WebACLARN string
}

// hops is how many proxies append to X-Forwarded-For before a node sees it.
func (f Front) hops() string {
	if f.Public {
		return "1"
	}
	return "2" // CloudFront and the load balancer
}

func (e *Edge) declareFront() {
	if e.props.Front.Public {
		e.declarePublicFront()
	} else {
		e.declareCloudFront()
	}
	e.SocketURL = str("wss://" + (*e.URL)[len("https://"):] + "/connection/websocket")
}

func (e *Edge) declarePublicFront() {
	e.URL = str("https://" + e.props.Front.Domain)
	world := awsec2.Peer_AnyIpv4()
	e.groups.balancer.AddIngressRule(world, awsec2.Port_Tcp(num(httpsPort)), str("the world"), no)
	e.groups.balancer.AddIngressRule(world, awsec2.Port_Tcp(num(httpPort)), str("the world, to be redirected"), no)
	Accept(e.groups.balancer, "AwsSolutions-EC23", "in alb mode the world is meant to reach the load balancer, and nothing else")
	e.Balancer.AddListener(str("Redirect"), &awselasticloadbalancingv2.BaseApplicationListenerProps{Open: no, Port: num(httpPort),
		Protocol: awselasticloadbalancingv2.ApplicationProtocol_HTTP,
		DefaultAction: awselasticloadbalancingv2.ListenerAction_Redirect(&awselasticloadbalancingv2.RedirectOptions{
			Protocol: str("HTTPS"), Port: str("443"), Permanent: yes})})
	if acl := e.props.Front.WebACLARN; acl != "" {
		awswafv2.NewCfnWebACLAssociation(e, str("WebACL"), &awswafv2.CfnWebACLAssociationProps{
			ResourceArn: e.Balancer.LoadBalancerArn(), WebAclArn: str(acl)})
	}
}

func (e *Edge) declareCloudFront() {
	front := e.props.Front
	origin := awscloudfront.NewVpcOrigin(e, str("Origin"), &awscloudfront.VpcOriginProps{
		Endpoint: awscloudfront.VpcOriginEndpoint_ApplicationLoadBalancer(e.Balancer), HttpPort: num(httpPort),
		ProtocolPolicy: awscloudfront.OriginProtocolPolicy_HTTP_ONLY})
	// A VPC origin can't be updated while a distribution uses it, and a tag that changes with each version would be an update.
	awscdk.Tags_Of(origin).Remove(str(TagVersion), &awscdk.TagProps{Priority: num(900)})
	e.openToCloudFront(origin)
	headers := awscloudfront.NewResponseHeadersPolicy(e, str("Headers"), &awscloudfront.ResponseHeadersPolicyProps{
		Comment: str("HSTS; everything else is set by nodes and functions"),
		SecurityHeadersBehavior: &awscloudfront.ResponseSecurityHeadersBehavior{
			StrictTransportSecurity: &awscloudfront.ResponseHeadersStrictTransportSecurity{
				AccessControlMaxAge: span(hstsAge), IncludeSubdomains: no, Override: yes}}})
	props := &awscloudfront.DistributionProps{Comment: str("Tideline, stage " + e.props.Stage),
		HttpVersion:   awscloudfront.HttpVersion_HTTP2_AND_3,
		EnableLogging: yes, LogBucket: e.frontLogs(), LogFilePrefix: str("front/"),
		DefaultBehavior: &awscloudfront.BehaviorOptions{
			// No ResponseCompletionTimeout: it would end long-lived connections.
			Origin: awscloudfrontorigins.VpcOrigin_WithVpcOrigin(origin, &awscloudfrontorigins.VpcOriginProps{
				KeepaliveTimeout: span(limit.FrontKeepAlive), ReadTimeout: span(limit.FrontReadTimeout)}),
			AllowedMethods: awscloudfront.AllowedMethods_ALLOW_ALL(), CachePolicy: awscloudfront.CachePolicy_CACHING_DISABLED(),
			// Host must arrive unchanged, or Origin would not match it.
			OriginRequestPolicy:  awscloudfront.OriginRequestPolicy_ALL_VIEWER(),
			ViewerProtocolPolicy: awscloudfront.ViewerProtocolPolicy_REDIRECT_TO_HTTPS, ResponseHeadersPolicy: headers}}
	if front.Domain != "" {
		props.DomainNames = jsii.Strings(front.Domain)
		props.Certificate = awscertificatemanager.Certificate_FromCertificateArn(e, str("Certificate"), str(front.CertificateARN))
		props.MinimumProtocolVersion = awscloudfront.SecurityPolicyProtocol_TLS_V1_2_2021
	}
	if front.WebACLARN != "" {
		props.WebAclId = str(front.WebACLARN)
	}
	d := awscloudfront.NewDistribution(e, str("Front"), props)
	e.Distribution = d
	e.serveAssets(d, headers)
	Accept(d, "AwsSolutions-CFR1", "open to every country; a deployment that is not attaches a web ACL with a geo rule (webAclArn)")
	Accept(d, "AwsSolutions-CFR2", "a web ACL is the deployer's choice (webAclArn), because it costs by the request")
	Accept(d, "AwsSolutions-CFR4", "without a domain of one's own CloudFront's default certificate fixes TLSv1 as the minimum")
	host := d.DistributionDomainName()
	if front.Domain != "" {
		host = str(front.Domain)
	}
	e.URL = str("https://" + *host)
}

// openToCloudFront lets CloudFront's interfaces in this VPC, and nobody else, reach the load balancer. Their security group is made by
// CloudFront together with the first VPC origin of the VPC, so it is looked up during the deployment.
func (e *Edge) openToCloudFront(origin awscloudfront.VpcOrigin) {
	lookup := customresources.NewAwsCustomResource(e, str("OriginGroup"), &customresources.AwsCustomResourceProps{
		ResourceType: str("Custom::CloudFrontOriginGroup"), InstallLatestAwsSdk: no, LogGroup: e.callLogs(),
		OnUpdate: &customresources.AwsSdkCall{Service: str("EC2"), Action: str("describeSecurityGroups"),
			Parameters: map[string]any{"Filters": []any{
				map[string]any{"Name": "vpc-id", "Values": []any{e.VPC.VpcId()}},
				map[string]any{"Name": "group-name", "Values": []any{"CloudFront-VPCOrigins-Service-SG"}}}},
			OutputPaths:        jsii.Strings("SecurityGroups.0.GroupId"),
			PhysicalResourceId: customresources.PhysicalResourceId_Of(str("cloudfront-origin-group"))},
		Policy: customresources.AwsCustomResourcePolicy_FromSdkCalls(&customresources.SdkCallsPolicyOptions{
			Resources: customresources.AwsCustomResourcePolicy_ANY_RESOURCE()})}) // describe actions know no resources
	Accept(lookup, "AwsSolutions-IAM5[Resource::*]", "ec2:DescribeSecurityGroups knows no resources")
	lookup.Node().AddDependency(origin)
	awsec2.NewCfnSecurityGroupIngress(e, str("OriginAccess"), &awsec2.CfnSecurityGroupIngressProps{IpProtocol: str("tcp"),
		FromPort: num(httpPort), ToPort: num(httpPort), GroupId: e.groups.balancer.SecurityGroupId(),
		SourceSecurityGroupId: lookup.GetResponseField(str("SecurityGroups.0.GroupId")), Description: str("CloudFront, through the VPC origin")})
}

// frontLogs is a bucket of its own: CloudFront's standard logging writes by ACL, which the other bucket forbids.
func (e *Edge) frontLogs() awss3.Bucket {
	days := trafficLogDays
	if e.props.Protect {
		days = trafficLogProd
	}
	b := awss3.NewBucket(e, str("FrontLogs"), e.Private(&awss3.BucketProps{
		ObjectOwnership: awss3.ObjectOwnership_BUCKET_OWNER_PREFERRED,
		LifecycleRules:  &[]*awss3.LifecycleRule{{Expiration: awscdk.Duration_Days(num(days))}}}))
	Accept(b, "AwsSolutions-S1", "this bucket holds logs; nobody reads it but people")
	return b
}

// serveAssets puts the page's hashed files into S3. Old ones stay, so that a page from before a deployment still finds its parts.
func (e *Edge) serveAssets(d awscloudfront.Distribution, headers awscloudfront.ResponseHeadersPolicy) {
	dir := e.props.Builds.Assets
	if dir == "" {
		return
	}
	bucket := awss3.NewBucket(e, str("Assets"), e.Private(&awss3.BucketProps{ServerAccessLogsBucket: e.BucketLogs, ServerAccessLogsPrefix: str("assets/")}))
	e.assets = awss3deployment.NewBucketDeployment(e, str("AssetFiles"), &awss3deployment.BucketDeploymentProps{DestinationBucket: bucket,
		LogGroup: e.Logs(e, "AssetFilesLogs"), DestinationKeyPrefix: str("assets"), Prune: no, MemoryLimit: num(512),
		Sources:      &[]awss3deployment.ISource{awss3deployment.Source_Asset(str(dir), nil)},
		CacheControl: &[]awss3deployment.CacheControl{awss3deployment.CacheControl_FromString(str("public, max-age=31536000, immutable"))}})
	d.AddBehavior(str("/assets/*"), awscloudfrontorigins.S3BucketOrigin_WithOriginAccessControl(bucket, nil), &awscloudfront.AddBehaviorOptions{
		CachePolicy: awscloudfront.CachePolicy_CACHING_OPTIMIZED(), Compress: yes, ResponseHeadersPolicy: headers,
		ViewerProtocolPolicy: awscloudfront.ViewerProtocolPolicy_REDIRECT_TO_HTTPS})
}
