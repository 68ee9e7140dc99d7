package edge

import (
	"fmt"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/jsii-runtime-go"

	"tideline/shared/limit"
)

// ServerAPI opens the nodes' server HTTP API to other services of the same network. The zero value keeps it closed.
type ServerAPI struct {
	// SecurityGroup is whose members may call it, in the edge's VPC or in one that is peered with it.
	SecurityGroup string
}

// apiKeyLength is that of the first key, letters and digits: 256 bits are 43 of them.
const apiKeyLength = 43

// apiPaths is all that the server API's load balancer passes on; the rest of the private port (metrics, profiles, health) stays unreachable.
const apiPaths = "/api/*"

// declareServerAPI: an internal load balancer of its own, whatever the edge mode, so that no mistake in the public one's rules can open it. It forwards POST below
// /api to the private port, for one security group. Keys are made here, kept in Secrets Manager, and fetched by the instances.
func (e *Edge) declareServerAPI() {
	if e.props.ServerAPI.SecurityGroup == "" {
		return
	}
	e.apiKeys = awssecretsmanager.NewSecret(e, str("ServerAPIKeys"), &awssecretsmanager.SecretProps{RemovalPolicy: awscdk.RemovalPolicy_DESTROY, // who closes the API takes its keys away
		Description:          str("keys of Tideline's server API, stage " + e.props.Stage + ": comma separated, the newest first"),
		GenerateSecretString: &awssecretsmanager.SecretStringGenerator{PasswordLength: num(apiKeyLength), ExcludePunctuation: yes}})
	Accept(e.apiKeys, "AwsSolutions-SMG4", "callers hold the keys, too, so that rotation is the operator's: docs/deployment.md has its three steps")
	access := awsec2.NewSecurityGroup(e, str("ServerAPIAccess"), &awsec2.SecurityGroupProps{Vpc: e.VPC, AllowAllOutbound: no, Description: str("the load balancer of the server API")})
	callers := awsec2.SecurityGroup_FromSecurityGroupId(e, str("ServerAPICallers"), str(e.props.ServerAPI.SecurityGroup), &awsec2.SecurityGroupImportOptions{Mutable: no})
	access.AddIngressRule(callers, awsec2.Port_Tcp(num(httpPort)), str("callers of the server API"), no)
	access.AddEgressRule(e.groups.nodes, awsec2.Port_Tcp(num(privatePort)), str("the server API"), no)
	e.groups.nodes.AddIngressRule(access, awsec2.Port_Tcp(num(privatePort)), str("the server API"), no)
	e.ServerAPI = awselasticloadbalancingv2.NewApplicationLoadBalancer(e, str("ServerAPI"), &awselasticloadbalancingv2.ApplicationLoadBalancerProps{
		Vpc: e.VPC, VpcSubnets: e.subnets, InternetFacing: no, SecurityGroup: access, IdleTimeout: span(limit.IdleTimeout), DropInvalidHeaderFields: yes,
		DeletionProtection: jsii.Bool(e.props.Protect)})
	e.logTraffic(e.ServerAPI, "api-")
	e.apiTargets = awselasticloadbalancingv2.NewApplicationTargetGroup(e, str("ServerAPITargets"), &awselasticloadbalancingv2.ApplicationTargetGroupProps{Vpc: e.VPC,
		Port: num(privatePort), Protocol: awselasticloadbalancingv2.ApplicationProtocol_HTTP, TargetType: awselasticloadbalancingv2.TargetType_INSTANCE,
		DeregistrationDelay: span(drain.grace), HealthCheck: nodeHealth()})
	listener := e.ServerAPI.AddListener(str("Listener"), &awselasticloadbalancingv2.BaseApplicationListenerProps{Open: no, Port: num(httpPort),
		Protocol:      awselasticloadbalancingv2.ApplicationProtocol_HTTP,
		DefaultAction: awselasticloadbalancingv2.ListenerAction_FixedResponse(num(404), &awselasticloadbalancingv2.FixedResponseOptions{ContentType: str("text/plain"), MessageBody: str("POST /api/…")})})
	awselasticloadbalancingv2.NewApplicationListenerRule(e, str("ServerAPIRoute"), &awselasticloadbalancingv2.ApplicationListenerRuleProps{Listener: listener, Priority: num(1),
		Conditions: &[]awselasticloadbalancingv2.ListenerCondition{awselasticloadbalancingv2.ListenerCondition_PathPatterns(jsii.Strings(apiPaths)),
			awselasticloadbalancingv2.ListenerCondition_HttpRequestMethods(jsii.Strings("POST"))},
		Action: awselasticloadbalancingv2.ListenerAction_Forward(&[]awselasticloadbalancingv2.IApplicationTargetGroup{e.apiTargets}, nil)})
}

// grantServerAPI lets the instances read the keys, and registers them with the API's load balancer.
func (e *Edge) grantServerAPI(role awsiam.Role) {
	if e.apiKeys != nil {
		Allow(role, []*string{e.apiKeys.SecretArn()}, "secretsmanager:GetSecretValue")
	}
}

// ServerAPIURL is where the API's callers send their commands; nil where it is closed.
func (e *Edge) ServerAPIURL() *string {
	if e.ServerAPI == nil {
		return nil
	}
	return str("http://" + *e.ServerAPI.LoadBalancerDnsName() + "/api")
}

// ServerAPIKeys is the secret that holds the API's keys; nil where it is closed.
func (e *Edge) ServerAPIKeys() *string {
	if e.apiKeys == nil {
		return nil
	}
	return e.apiKeys.SecretArn()
}

// nodeHealth is the health check of the nodes, by the private port.
func nodeHealth() *awselasticloadbalancingv2.HealthCheck {
	return &awselasticloadbalancingv2.HealthCheck{Port: str(fmt.Sprint(privatePort)), Path: str("/readyz"),
		HealthyHttpCodes: str("200"), Interval: span(limit.HealthInterval), Timeout: span(limit.HealthTimeout),
		HealthyThresholdCount: num(limit.HealthSuccesses), UnhealthyThresholdCount: num(limit.HealthFailures)}
}
