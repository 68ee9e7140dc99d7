package main

import (
	"slices"
	"strings"
	"testing"
)

// rule is one way into or out of a security group.
type rule struct{ group, peer, ports string }

// rules of all security groups in a direction, whether they are written into the group or beside it.
func (tm template) rules(t *testing.T, direction string) []rule {
	t.Helper()
	var out []rule
	add := func(group string, v map[string]any) {
		peer := ""
		for _, key := range []string{"SourceSecurityGroupId", "DestinationSecurityGroupId", "CidrIp", "CidrIpv6", "SourcePrefixListId"} {
			if v[key] == nil {
				continue
			}
			peer = plain(v[key])
			if id, ok := at(v[key], "Fn::GetAtt.0").(string); ok {
				peer = id
			}
		}
		out = append(out, rule{group, strings.Trim(peer, `"`), plain(v["FromPort"]) + "-" + plain(v["ToPort"])})
	}
	for _, g := range tm.all(t, "AWS::EC2::SecurityGroup") {
		inline, _ := g.get("SecurityGroup" + direction).([]any)
		for _, v := range inline {
			add(g.ID, v.(map[string]any))
		}
	}
	for _, r := range tm.all(t, "AWS::EC2::SecurityGroup"+direction) {
		group, _ := r.get("GroupId.Fn::GetAtt.0").(string)
		add(group, r.Properties)
	}
	return out
}

// into lists who may reach the group whose id begins with prefix, as "peer ports".
func (tm template) into(t *testing.T, prefix string) []string {
	t.Helper()
	var out []string
	for _, r := range tm.rules(t, "Ingress") {
		if strings.HasPrefix(r.group, prefix) {
			out = append(out, r.peer+" "+r.ports)
		}
	}
	if len(out) == 0 {
		t.Fatalf("nobody reaches %s", prefix)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func prefixed(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %q, want one for each of %q", got, want)
	}
	for i, g := range got {
		peer, ports, _ := strings.Cut(g, " ")
		wantPeer, wantPorts, _ := strings.Cut(want[i], " ")
		if !strings.HasPrefix(peer, wantPeer) || ports != wantPorts {
			t.Errorf("got %q, want %q", g, want[i])
		}
	}
}

func TestOnlyTheBalancerReachesTheNodes(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		prefixed(t, tm.into(t, "EdgeNodeAccess"), "EdgeBalancerAccess 8000-8000", "EdgeBalancerAccess 9000-9000")
	}, "dev", "prod", "serverless")
	everywhere(t, func(t *testing.T, tm template) {
		prefixed(t, tm.into(t, "EdgeNodeAccess"), "EdgeBalancerAccess 8000-8000", "EdgeBalancerAccess 9000-9000", "EdgeServerAPIAccess 9000-9000")
	}, "alb", "existing")
}

func TestOnlyNodesAndFunctionsReachTheCache(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		prefixed(t, tm.into(t, "EdgeCacheAccess"), "EdgeFunctionAccess 6379-6379", "EdgeNodeAccess 6379-6379")
	}, "dev", "prod", "alb")
	everywhere(t, func(t *testing.T, tm template) {
		prefixed(t, tm.into(t, "EdgeCacheAccess"), "EdgeFunctionAccess 6379-6380", "EdgeNodeAccess 6379-6380")
	}, "serverless")
}

func TestTheCacheUsesThatGroupAndNoOther(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		kind := "AWS::ElastiCache::ReplicationGroup"
		if len(tm.maybe(kind)) == 0 {
			kind = "AWS::ElastiCache::ServerlessCache"
		}
		groups := tm.all(t, kind)[0].get("SecurityGroupIds").([]any)
		if len(groups) != 1 || !mentions(groups[0], "EdgeCacheAccess") {
			t.Errorf("security groups %s", plain(groups))
		}
	}, "dev", "prod", "alb", "serverless")
}

func TestOnlyCloudFrontReachesTheBalancer(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		got := tm.into(t, "EdgeBalancerAccess")
		prefixed(t, got, "EdgeOriginGroup 80-80") // looked up during the deployment
		lookup := tm.one(t, "Custom::CloudFrontOriginGroup", "EdgeOriginGroup")
		if call := plain(lookup.get("Update")); !strings.Contains(call, "CloudFront-VPCOrigins-Service-SG") || !strings.Contains(call, "vpc-id") {
			t.Errorf("looks up %s", call)
		}
		if !mentions(lookup.DependsOn, "EdgeOrigin") {
			t.Error("the group is looked up before the origin that brings it")
		}
		tm.all(t, "AWS::ElasticLoadBalancingV2::LoadBalancer")[0].want(t, "Scheme", "internal")
	}, "dev", "prod", "serverless", "existing")
}

func TestInALBModeTheWorldReachesTheBalancerAndNothingElse(t *testing.T) {
	tm := synth(t, "alb")
	prefixed(t, tm.into(t, "EdgeBalancerAccess"), "0.0.0.0/0 443-443", "0.0.0.0/0 80-80")
	for _, r := range tm.rules(t, "Ingress") {
		if strings.Contains(r.peer, "/0") && !strings.HasPrefix(r.group, "EdgeBalancerAccess") {
			t.Errorf("%s is open to %s", r.group, r.peer)
		}
	}
}

// Health checks go to the private port; no listener and no rule forwards to it, so nobody outside reaches /metrics or /debug. The server API's has a test of its own.
func TestNothingForwardsToThePrivatePort(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		nodes := tm.one(t, "AWS::ElasticLoadBalancingV2::TargetGroup", "EdgeNodeTargets")
		nodes.want(t, "Port", 8000)
		nodes.want(t, "HealthCheckPort", "9000")
		nodes.want(t, "HealthCheckPath", "/readyz")
		for _, g := range tm.all(t, "AWS::ElasticLoadBalancingV2::TargetGroup") {
			if port := plain(g.get("Port")); port != "8000" && port != "null" && !strings.HasPrefix(g.ID, "EdgeServerAPITargets") { // functions have none
				t.Errorf("%s forwards to port %s", g.ID, port)
			}
		}
	})
}

func TestEgressGoesToKnownPlacesOnly(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, r := range tm.rules(t, "Egress") {
			world := strings.Contains(r.peer, "0.0.0.0/0")
			// 443 leads to the endpoints only, since no route leads anywhere else. 6390 is the Redis of the variant that brings its own.
			if world && r.ports != "443-443" && r.ports != "6390-6390" {
				t.Errorf("%s may go to %s, ports %s", r.group, r.peer, r.ports)
			}
		}
	})
}

func TestNoRouteLeadsOutOfTheInsideSubnets(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		if n := len(tm.maybe("AWS::EC2::NatGateway")); n != 0 {
			t.Errorf("%d NAT gateways", n)
		}
		for _, r := range tm.maybe("AWS::EC2::Route") {
			if !strings.Contains(r.ID, "balancerSubnet") {
				t.Errorf("route %s to %s", r.ID, plain(r.Properties))
			}
		}
	})
}

func TestAnInternetGatewayIsAttachedOnlyWhereItIsNeeded(t *testing.T) {
	for name, want := range map[string]int{"dev": 1, "alb": 1, "existing": 0} {
		tm := synth(t, name)
		if got := len(tm.maybe("AWS::EC2::VPCGatewayAttachment")); got != want {
			t.Errorf("%s: %d attachments, want %d", name, got, want)
		}
	}
	if routes := synth(t, "dev").maybe("AWS::EC2::Route"); len(routes) != 0 {
		t.Errorf("CloudFront's origin needs the gateway, but no route: %v", routes)
	}
}

func TestInterfaceEndpointsAreExactlyWhatNodesCall(t *testing.T) {
	base := []string{"autoscaling", "logs", "monitoring"}
	for name, want := range map[string][]string{"dev": base, "prod": append([]string{"stream-logs"}, base...), "serverless": base,
		"alb": append([]string{"ec2messages", "ssm", "ssmmessages", "secretsmanager"}, base...), "existing": nil} {
		var got []string
		gateways := 0
		tm := synth(t, name)
		for _, e := range tm.maybe("AWS::EC2::VPCEndpoint") {
			if e.get("VpcEndpointType") == "Gateway" {
				gateways++
				continue
			}
			service := plain(e.get("ServiceName"))
			got = append(got, strings.Trim(service[strings.LastIndex(service, ".")+1:], `"`))
			prefixed(t, tm.into(t, "EdgeEndpointAccess"), "EdgeNodeAccess 443-443")
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: endpoints %v, want %v", name, got, want)
		}
		if free := 2; name != "existing" && gateways != free {
			t.Errorf("%s: %d gateway endpoints, want S3 and DynamoDB", name, gateways)
		}
	}
}

func TestAnExistingVPCGetsNoNetworkOfOurs(t *testing.T) {
	tm := synth(t, "existing")
	for _, kind := range []string{"AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::RouteTable", "AWS::EC2::VPCEndpoint", "AWS::EC2::InternetGateway"} {
		if found := tm.maybe(kind); len(found) != 0 {
			t.Errorf("%s: %v", kind, found[0].ID)
		}
	}
	tm.one(t, "AWS::AutoScaling::AutoScalingGroup", "EdgeNodesASG").want(t, "VPCZoneIdentifier",
		[]string{"subnet-0123456789abcdef0", "subnet-0123456789abcdef1"})
}

func TestZonesThatAreNamedAreUsed(t *testing.T) {
	zones := map[string]bool{}
	for _, s := range synth(t, "alb").all(t, "AWS::EC2::Subnet") {
		zones[s.get("AvailabilityZone").(string)] = true
	}
	if len(zones) != 3 || !zones["eu-central-1c"] {
		t.Errorf("zones %v", zones)
	}
}
