package edge

import (
	"fmt"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscertificatemanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/jsii-runtime-go"

	"tideline/shared/limit"
)

// declareBalancer: one application load balancer. Requests go to the nodes, unless a Route sends their path to a function.
func (e *Edge) declareBalancer() {
	front := e.props.Front
	where := e.subnets
	if front.Public {
		where = &awsec2.SubnetSelection{SubnetType: awsec2.SubnetType_PUBLIC}
	}
	e.Balancer = awselasticloadbalancingv2.NewApplicationLoadBalancer(e, str("Balancer"),
		&awselasticloadbalancingv2.ApplicationLoadBalancerProps{Vpc: e.VPC, VpcSubnets: where, InternetFacing: jsii.Bool(front.Public),
			SecurityGroup: e.groups.balancer, IdleTimeout: span(limit.IdleTimeout), DropInvalidHeaderFields: yes,
			DeletionProtection: jsii.Bool(e.props.Protect)})
	e.logTraffic(e.Balancer, "")
	e.Targets = awselasticloadbalancingv2.NewApplicationTargetGroup(e, str("NodeTargets"),
		&awselasticloadbalancingv2.ApplicationTargetGroupProps{Vpc: e.VPC, Port: num(publicPort),
			Protocol:   awselasticloadbalancingv2.ApplicationProtocol_HTTP,
			TargetType: awselasticloadbalancingv2.TargetType_INSTANCE,
			// A socket counts as one outstanding request, so this is least connections.
			LoadBalancingAlgorithmType: awselasticloadbalancingv2.TargetGroupLoadBalancingAlgorithmType_LEAST_OUTSTANDING_REQUESTS,
			StickinessCookieDuration:   span(limit.StickyTTL), DeregistrationDelay: span(drain.deregistration),
			HealthCheck: nodeHealth()})
	props := &awselasticloadbalancingv2.BaseApplicationListenerProps{Open: no, Port: num(httpPort),
		Protocol:            awselasticloadbalancingv2.ApplicationProtocol_HTTP,
		DefaultTargetGroups: &[]awselasticloadbalancingv2.IApplicationTargetGroup{e.Targets}}
	if front.Public {
		certificate := awscertificatemanager.Certificate_FromCertificateArn(e, str("Certificate"), str(front.CertificateARN))
		props.Port, props.Protocol = num(httpsPort), awselasticloadbalancingv2.ApplicationProtocol_HTTPS
		props.SslPolicy = awselasticloadbalancingv2.SslPolicy_TLS13_12_RES_PQ
		props.Certificates = &[]awselasticloadbalancingv2.IListenerCertificate{
			awselasticloadbalancingv2.ListenerCertificate_FromCertificateManager(certificate)}
	}
	e.listener = e.Balancer.AddListener(str("Listener"), props)
	if front.Public { // where there is a CloudFront, it does this
		e.listener.SetAttribute(str("routing.http.response.strict_transport_security.header_value"), str(fmt.Sprintf("max-age=%.0f", hstsAge.Seconds())))
	}
}

// logTraffic sends a balancer's access and connection logs to the log bucket, under names that begin with prefix. The CDK's own method needs a region at synthesis, because of log accounts
// of regions before 2022; the log delivery service is accepted in all of them.
func (e *Edge) logTraffic(balancer awselasticloadbalancingv2.ApplicationLoadBalancer, prefix string) {
	for _, kind := range []string{"access", "connection"} {
		attribute, folder := kind+"_logs", prefix+kind
		balancer.SetAttribute(str(attribute+".s3.enabled"), str("true"))
		balancer.SetAttribute(str(attribute+".s3.bucket"), e.logs.BucketName())
		balancer.SetAttribute(str(attribute+".s3.prefix"), str(folder))
		e.logs.AddToResourcePolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
			Principals: &[]awsiam.IPrincipal{awsiam.NewServicePrincipal(str("logdelivery.elasticloadbalancing.amazonaws.com"), nil)},
			Actions:    jsii.Strings("s3:PutObject"),
			Resources:  &[]*string{e.logs.ArnForObjects(str(folder + "/AWSLogs/" + *awscdk.Aws_ACCOUNT_ID() + "/*"))}}))
	}
	// The balancer writes a test object when it is created.
	balancer.Node().AddDependency(e.logs.Policy())
}

// Route sends the paths to a function instead of the nodes. Priorities are from 1 to 50000, lower ones first, each used once; the edge's own
// are below 100. At most five paths, the load balancer's limit; "/x/*" does not match "/x".
func (e *Edge) Route(f *Function, priority int, paths ...string) {
	if f.targets == nil {
		f.targets = awselasticloadbalancingv2.NewApplicationTargetGroup(f, str("Targets"),
			&awselasticloadbalancingv2.ApplicationTargetGroupProps{TargetType: awselasticloadbalancingv2.TargetType_LAMBDA,
				// Without it duplicate headers and query keys collapse to the last, and Set-Cookie can be sent only once.
				MultiValueHeadersEnabled: yes,
				Targets:                  &[]awselasticloadbalancingv2.IApplicationLoadBalancerTarget{newLambdaTarget(f.Alias)}})
	}
	id := fmt.Sprintf("%sRoute%d", *f.Node().Id(), priority)
	awselasticloadbalancingv2.NewApplicationListenerRule(e, str(id), &awselasticloadbalancingv2.ApplicationListenerRuleProps{
		Listener: e.listener, Priority: num(priority),
		Conditions: &[]awselasticloadbalancingv2.ListenerCondition{
			awselasticloadbalancingv2.ListenerCondition_PathPatterns(jsii.Strings(paths...))},
		Action: awselasticloadbalancingv2.ListenerAction_Forward(
			&[]awselasticloadbalancingv2.IApplicationTargetGroup{f.targets}, nil)})
}
