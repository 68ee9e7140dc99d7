package edge

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/jsii-runtime-go"
)

// Network says where the edge lives. The zero value is a new VPC over the region's first two zones.
type Network struct {
	// Zones by name; nil takes the first two of the region. They can't change in a stack's life.
	Zones []string
	// VPCID, with one subnet of each zone, uses a VPC that exists. Its owner sees to the endpoints; docs/deployment.md lists them.
	VPCID         string
	Subnets       []string
	PublicSubnets []string
	// Shell adds the endpoints and the permission for Session Manager. There is no SSH.
	Shell bool
}

// securityGroups say who may reach whom; every rule is in declareSecurityGroups or beside the resource that it opens.
type securityGroups struct {
	balancer, nodes, functions, cache, endpoints awsec2.SecurityGroup
}

func (e *Edge) declareNetwork() {
	n := e.props.Network
	e.subnets = &awsec2.SubnetSelection{SubnetType: awsec2.SubnetType_PRIVATE_ISOLATED}
	if n.VPCID != "" {
		attributes := &awsec2.VpcAttributes{VpcId: str(n.VPCID), AvailabilityZones: jsii.Strings(n.Zones...),
			IsolatedSubnetIds: jsii.Strings(n.Subnets...)}
		if len(n.PublicSubnets) > 0 {
			attributes.PublicSubnetIds = jsii.Strings(n.PublicSubnets...)
		}
		e.VPC = awsec2.Vpc_FromVpcAttributes(e, str("Network"), attributes)
		Accept(e.VPC, "@aws-cdk/aws-ec2:noSubnetRouteTableId", "nothing of ours goes into its route tables")
		return
	}
	subnets := []*awsec2.SubnetConfiguration{
		{Name: str("inside"), SubnetType: awsec2.SubnetType_PRIVATE_ISOLATED, CidrMask: num(20)}}
	if e.props.Front.Public {
		subnets = append(subnets, &awsec2.SubnetConfiguration{Name: str("balancer"), SubnetType: awsec2.SubnetType_PUBLIC,
			CidrMask: num(24), MapPublicIpOnLaunch: no})
	}
	props := &awsec2.VpcProps{NatGateways: num(0), SubnetConfiguration: &subnets,
		IpAddresses: awsec2.IpAddresses_Cidr(str("10.64.0.0/16")),
		GatewayEndpoints: &map[string]*awsec2.GatewayVpcEndpointOptions{
			"S3":       {Service: awsec2.GatewayVpcEndpointAwsService_S3()},
			"DynamoDB": {Service: awsec2.GatewayVpcEndpointAwsService_DYNAMODB()}}}
	if len(n.Zones) > 0 {
		props.AvailabilityZones = jsii.Strings(n.Zones...)
	} else {
		props.MaxAzs = num(2)
	}
	vpc := awsec2.NewVpc(e, str("Network"), props)
	if !e.props.Front.Public {
		// CloudFront reaches a VPC origin only where an internet gateway is attached. No route leads to it.
		gateway := awsec2.NewCfnInternetGateway(e, str("OriginGateway"), nil)
		awsec2.NewCfnVPCGatewayAttachment(e, str("OriginGatewayAttachment"), &awsec2.CfnVPCGatewayAttachmentProps{
			VpcId: vpc.VpcId(), InternetGatewayId: gateway.AttrInternetGatewayId()})
	}
	e.VPC = vpc
}

// declareSecurityGroups: world or CloudFront -> balancer -> nodes -> cache, endpoints; functions -> cache. Nothing else.
func (e *Edge) declareSecurityGroups() {
	group := func(id, what string) awsec2.SecurityGroup {
		return awsec2.NewSecurityGroup(e, str(id), &awsec2.SecurityGroupProps{Vpc: e.VPC, AllowAllOutbound: no, Description: str(what)})
	}
	tcp := func(port int) awsec2.Port { return awsec2.Port_Tcp(num(port)) }
	g := securityGroups{
		balancer:  group("BalancerAccess", "the load balancer"),
		nodes:     group("NodeAccess", "the nodes"),
		functions: group("FunctionAccess", "functions in the VPC"),
	}
	for _, port := range []int{publicPort, privatePort} {
		what := map[int]string{publicPort: "requests and sockets", privatePort: "health checks"}[port]
		g.nodes.AddIngressRule(g.balancer, tcp(port), str(what), no)
		g.balancer.AddEgressRule(g.nodes, tcp(port), str(what), no)
	}
	redis := tcp(redisPort)
	if e.props.Cache.Kind == CacheServerless { // it lists its read replicas at the next port, and cluster clients ask them for the slots
		redis = awsec2.Port_TcpRange(num(redisPort), num(redisPort+1))
	}
	if port := e.props.Cache.externalPort(); port != 0 {
		for _, from := range []awsec2.SecurityGroup{g.nodes, g.functions} {
			from.AddEgressRule(awsec2.Peer_AnyIpv4(), tcp(port), str("the existing Redis"), no)
		}
	} else {
		g.cache = group("CacheAccess", "the cache")
		for _, from := range []awsec2.SecurityGroup{g.nodes, g.functions} {
			g.cache.AddIngressRule(from, redis, str("Redis, from nodes and functions"), no)
			from.AddEgressRule(g.cache, redis, str("Redis"), no)
		}
	}
	// Gateway endpoints are reached at the services' public addresses; there is no route to anything else.
	for _, from := range []awsec2.SecurityGroup{g.nodes, g.functions} {
		from.AddEgressRule(awsec2.Peer_AnyIpv4(), tcp(httpsPort), str("AWS services, through the endpoints"), no)
	}
	e.groups = g
	e.declareEndpoints()
}

// declareEndpoints: exactly what nodes call that has no free gateway endpoint. Each costs money per zone and hour.
func (e *Edge) declareEndpoints() {
	n := e.props.Network
	if n.VPCID != "" {
		return
	}
	type endpoint struct {
		id      string
		service awsec2.InterfaceVpcEndpointAwsService
	}
	services := []endpoint{
		{"Monitoring", awsec2.InterfaceVpcEndpointAwsService_CLOUDWATCH_MONITORING()},
		{"Logs", awsec2.InterfaceVpcEndpointAwsService_CLOUDWATCH_LOGS()},
		{"AutoScaling", awsec2.InterfaceVpcEndpointAwsService_AUTOSCALING()},
	}
	if n.Shell {
		services = append(services,
			endpoint{"Shell", awsec2.InterfaceVpcEndpointAwsService_SSM()},
			endpoint{"ShellMessages", awsec2.InterfaceVpcEndpointAwsService_SSM_MESSAGES()},
			endpoint{"ShellCommands", awsec2.InterfaceVpcEndpointAwsService_EC2_MESSAGES()})
	}
	if e.props.ServerAPI.SecurityGroup != "" {
		services = append(services, endpoint{"Secrets", awsec2.InterfaceVpcEndpointAwsService_SECRETS_MANAGER()})
	}
	if e.props.LiveLogs.On { // what streams has a host, and an endpoint, of its own
		services = append(services, endpoint{"LiveLogs", awsec2.NewInterfaceVpcEndpointAwsService(str("stream-logs"), nil, nil, nil)})
	}
	e.groups.endpoints = awsec2.NewSecurityGroup(e, str("EndpointAccess"), &awsec2.SecurityGroupProps{Vpc: e.VPC,
		AllowAllOutbound: no, Description: str("interface endpoints of AWS services")})
	e.groups.endpoints.AddIngressRule(e.groups.nodes, awsec2.Port_Tcp(num(httpsPort)), str("AWS services, from nodes"), no)
	for _, s := range services {
		endpoint := awsec2.NewInterfaceVpcEndpoint(e, str(s.id+"Endpoint"), &awsec2.InterfaceVpcEndpointProps{Vpc: e.VPC, Service: s.service,
			Open: no, Subnets: e.subnets, SecurityGroups: &[]awsec2.ISecurityGroup{e.groups.endpoints}})
		endpoint.AddToPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
			Principals: &[]awsiam.IPrincipal{awsiam.NewAnyPrincipal()}, Actions: jsii.Strings("*"), Resources: jsii.Strings("*"),
			// Credentials of another account can't carry anything out through this endpoint.
			Conditions: &map[string]any{"StringEquals": map[string]any{"aws:PrincipalAccount": awscdk.Aws_ACCOUNT_ID()}}}))
	}
}
