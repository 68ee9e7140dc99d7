package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Caller is who the credentials belong to.
type Caller struct {
	Account string `xml:"GetCallerIdentityResult>Account"`
	ARN     string `xml:"GetCallerIdentityResult>Arn"`
}

// Caller asks who we are.
func (a *Account) Caller(ctx context.Context) (c Caller, err error) {
	err = a.Ask(ctx, "sts", "GetCallerIdentity", nil, &c)
	return c, err
}

// Stack is a deployed stack; Status is empty when there is none.
type Stack struct {
	Status     string
	Outputs    map[string]string
	Parameters map[string]string
}

// Stack asks for a stack by name.
func (a *Account) Stack(ctx context.Context, name string) (Stack, error) {
	var answer struct {
		Stacks []struct {
			Status  string                                          `xml:"StackStatus"`
			Outputs []struct{ OutputKey, OutputValue string }       `xml:"Outputs>member"`
			Values  []struct{ ParameterKey, ParameterValue string } `xml:"Parameters>member"`
		} `xml:"DescribeStacksResult>Stacks>member"`
	}
	err := a.Ask(ctx, "cloudformation", "DescribeStacks", url.Values{"StackName": {name}}, &answer)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == "ValidationError" && strings.Contains(refused.Message, "does not exist") {
		return Stack{}, nil
	}
	if err != nil || len(answer.Stacks) == 0 {
		return Stack{}, err
	}
	s := Stack{Status: answer.Stacks[0].Status, Outputs: map[string]string{}, Parameters: map[string]string{}}
	for _, p := range answer.Stacks[0].Values {
		s.Parameters[p.ParameterKey] = p.ParameterValue
	}
	for _, o := range answer.Stacks[0].Outputs {
		s.Outputs[o.OutputKey] = o.OutputValue
	}
	return s, nil
}

// Resource of a deployed template, with what happens to it when the stack goes.
type Resource struct {
	Type           string
	DeletionPolicy string
}

// Template asks for the resources of a deployed template, by logical id.
func (a *Account) Template(ctx context.Context, stack string) (map[string]Resource, error) {
	var answer struct {
		Body string `xml:"GetTemplateResult>TemplateBody"`
	}
	if err := a.Ask(ctx, "cloudformation", "GetTemplate", url.Values{"StackName": {stack}}, &answer); err != nil {
		return nil, err
	}
	var t struct{ Resources map[string]Resource }
	if err := json.Unmarshal([]byte(answer.Body), &t); err != nil {
		return nil, fmt.Errorf("template of %s: %w", stack, err)
	}
	return t.Resources, nil
}

// Names asks for the physical names of a stack's resources, by logical id.
func (a *Account) Names(ctx context.Context, stack string) (map[string]string, error) {
	names := map[string]string{}
	for next := ""; ; {
		var answer struct {
			Resources []struct{ LogicalResourceId, PhysicalResourceId string } `xml:"ListStackResourcesResult>StackResourceSummaries>member"`
			Next      string                                                   `xml:"ListStackResourcesResult>NextToken"`
		}
		parameters := url.Values{"StackName": {stack}}
		if next != "" {
			parameters.Set("NextToken", next)
		}
		if err := a.Ask(ctx, "cloudformation", "ListStackResources", parameters, &answer); err != nil {
			return nil, err
		}
		for _, r := range answer.Resources {
			names[r.LogicalResourceId] = r.PhysicalResourceId
		}
		if next = answer.Next; next == "" {
			return names, nil
		}
	}
}

// Zones asks for the region's availability zones that can be used.
func (a *Account) Zones(ctx context.Context) ([]string, error) {
	var answer struct {
		Zones []struct {
			Name  string `xml:"zoneName"`
			State string `xml:"zoneState"`
		} `xml:"availabilityZoneInfo>item"`
	}
	err := a.Ask(ctx, "ec2", "DescribeAvailabilityZones", url.Values{"Filter.1.Name": {"zone-type"}, "Filter.1.Value.1": {"availability-zone"}}, &answer)
	var names []string
	for _, z := range answer.Zones {
		if z.State == "available" {
			names = append(names, z.Name)
		}
	}
	return names, err
}

// Offered asks in which zones an instance type is offered.
func (a *Account) Offered(ctx context.Context, instance string) ([]string, error) {
	var answer struct {
		Zones []string `xml:"instanceTypeOfferingSet>item>location"`
	}
	err := a.Ask(ctx, "ec2", "DescribeInstanceTypeOfferings", url.Values{"LocationType": {"availability-zone"},
		"Filter.1.Name": {"instance-type"}, "Filter.1.Value.1": {instance}}, &answer)
	return answer.Zones, err
}

// VPCs asks for the VPCs of the region.
func (a *Account) VPCs(ctx context.Context) ([]string, error) {
	var answer struct {
		IDs []string `xml:"vpcSet>item>vpcId"`
	}
	err := a.Ask(ctx, "ec2", "DescribeVpcs", nil, &answer)
	return answer.IDs, err
}

// Gateways asks whether an internet gateway is attached to a VPC.
func (a *Account) Gateways(ctx context.Context, vpc string) (int, error) {
	var answer struct {
		IDs []string `xml:"internetGatewaySet>item>internetGatewayId"`
	}
	err := a.Ask(ctx, "ec2", "DescribeInternetGateways", url.Values{"Filter.1.Name": {"attachment.vpc-id"}, "Filter.1.Value.1": {vpc}}, &answer)
	return len(answer.IDs), err
}

// Endpoints asks which services have an endpoint in a VPC, by the last part of their name.
func (a *Account) Endpoints(ctx context.Context, vpc string) ([]string, error) {
	var answer struct {
		Names []string `xml:"vpcEndpointSet>item>serviceName"`
	}
	err := a.Ask(ctx, "ec2", "DescribeVpcEndpoints", url.Values{"Filter.1.Name": {"vpc-id"}, "Filter.1.Value.1": {vpc}}, &answer)
	for i, name := range answer.Names {
		answer.Names[i] = name[strings.LastIndex(name, ".")+1:]
	}
	return answer.Names, err
}

// Target is one target of a group and its state.
type Target struct {
	ID     string `xml:"Target>Id"`
	State  string `xml:"TargetHealth>State"`
	Reason string `xml:"TargetHealth>Description"`
}

// Targets asks for the health of a target group.
func (a *Account) Targets(ctx context.Context, group string) ([]Target, error) {
	var answer struct {
		Targets []Target `xml:"DescribeTargetHealthResult>TargetHealthDescriptions>member"`
	}
	err := a.Ask(ctx, "elasticloadbalancing", "DescribeTargetHealth", url.Values{"TargetGroupArn": {group}}, &answer)
	return answer.Targets, err
}

// DeleteStack begins the deletion of a stack.
func (a *Account) DeleteStack(ctx context.Context, name string) error {
	return a.Ask(ctx, "cloudformation", "DeleteStack", url.Values{"StackName": {name}}, &struct{}{})
}

// TakeTerminationProtectionOff lets a stack be deleted.
func (a *Account) TakeTerminationProtectionOff(ctx context.Context, stack string) error {
	return a.Ask(ctx, "cloudformation", "UpdateTerminationProtection", url.Values{"StackName": {stack}, "EnableTerminationProtection": {"false"}}, &struct{}{})
}

// TakeBalancerProtectionOff lets a load balancer be deleted.
func (a *Account) TakeBalancerProtectionOff(ctx context.Context, arn string) error {
	return a.Ask(ctx, "elasticloadbalancing", "ModifyLoadBalancerAttributes", url.Values{"LoadBalancerArn": {arn},
		"Attributes.member.1.Key": {"deletion_protection.enabled"}, "Attributes.member.1.Value": {"false"}}, &struct{}{})
}

// SecurityGroupVPC asks which VPC a security group is in; empty when there is no such group.
func (a *Account) SecurityGroupVPC(ctx context.Context, id string) (string, error) {
	var answer struct {
		VPCs []string `xml:"securityGroupInfo>item>vpcId"`
	}
	err := a.Ask(ctx, "ec2", "DescribeSecurityGroups", url.Values{"GroupId.1": {id}}, &answer)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == "InvalidGroup.NotFound" {
		return "", nil
	}
	if err != nil || len(answer.VPCs) == 0 {
		return "", err
	}
	return answer.VPCs[0], nil
}
