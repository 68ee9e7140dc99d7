// Package settings turns the context of a deployment (-c name=value) into checked values, and reports every mistake at once.
//
// It calls neither AWS nor the CDK, so that a wrong value is refused before anything is built or deployed.
package settings

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Edge modes, cache kinds, engines, applications and kinds of sign-in: the words that a person may type.
const (
	EdgeCloudFront = "cloudfront" // internal load balancer behind a VPC origin
	EdgeALB        = "alb"        // public load balancer with a certificate of one's own

	CacheNode       = "node"       // one primary, with replicas in prod
	CacheCluster    = "cluster"    // cluster mode, several shards
	CacheServerless = "serverless" // ElastiCache Serverless

	EngineValkey = "valkey"
	EngineRedis  = "redis"

	AppTodo = "todo"
	AppNone = "none" // the edge alone

	LogGroupsOff = "off"
	LogGroupsOwn = "own" // those of the stack

	AuthGuest = "guest"
	AuthOIDC  = "oidc"

	ProfileDev  = "dev"  // small, and destroyed with the stack
	ProfileProd = "prod" // retained, protected, Multi-AZ
)

// CloudFrontRegion is the only region whose certificates and web ACLs CloudFront takes.
const CloudFrontRegion = "us-east-1"

// RolloutPercent of a fleet may run while it is replaced: instances are launched before others are terminated.
const RolloutPercent = 110

// Tags of everything that a stack makes.
const (
	TagApp     = "tideline:app"
	TagStage   = "tideline:stage"
	TagVersion = "tideline:version"
)

// OwnChoice is what outputs say where nothing was set: CloudFormation takes no empty output.
const OwnChoice = "default"

// Bounds of the numbers that may be set.
const (
	maxNodes       = 200       // the default quota of targets per balancer and zone is 1,000
	maxConnections = 1_000_000 // per node; what a node really holds is in docs/benchmarks.md
	maxShards      = 90        // the default quota of nodes per ElastiCache cluster
	maxZones       = 6
	maxLogGroups   = 20  // a role's policies take 10,240 characters
	maxRunbookURL  = 512 // an alarm's description takes 1,024 characters
)

// Settings of one deployment, checked. Parse makes them.
type Settings struct {
	Stage string // part of every name; a-z, digits and hyphens, at most 16
	Prod  bool   // profile=prod
	App   string
	// Channels is a JSON file of namespaces; empty: those that ship.
	Channels string
	Version  string

	Edge           string
	DomainName     string // empty: CloudFront's own
	CertificateARN string
	WebACLARN      string

	Zones           []string // empty: the first two of the region
	VPCID           string   // empty: a new one
	SubnetIDs       []string // of the existing VPC: where nodes, functions and cache go
	PublicSubnetIDs []string // of the existing VPC, alb mode only
	Shell           bool     // Session Manager

	NodeInstanceType   string
	NodeArch           Arch
	MinNodes           int
	MaxNodes           int
	ConnectionsPerNode int  // target of the scaling policy
	RefreshAlarms      bool // an alarm ends a roll-out
	// NodeLimits are settings of nodes that the deployer has set, by the name that the node reads.
	NodeLimits map[string]string
	// LiveLogs lets operators watch the stack's log groups, and LogGroups beside them.
	LiveLogs  bool
	LogGroups []string
	// ServerAPISecurityGroup may call the server API; empty: it is closed.
	ServerAPISecurityGroup string

	Cache         string
	Engine        string
	CacheNodeType string
	CacheShards   int
	RedisURL      string // empty: a cache of our own

	TableName      string // empty: a new table
	TableStreamARN string

	Auth         string
	OIDCIssuer   string
	OIDCAudience string
	OIDCName     string // begins the names of the issuer's users
	OperatorRole string
	RoleClaim    string
	Cognito      bool // make a user pool and use it as issuer

	AlarmEmail string
	RunbookURL string
}

// Region of the deployment, as the CDK's command line knows it; empty when nobody does.
type Region string

// Parse checks the context of a deployment. Keys that hold a ':' , '/' or '@' are the CDK's own and are left alone. The error
// joins all mistakes; each names its value and what is allowed.
func Parse(context map[string]any, region Region) (Settings, error) {
	p := &parser{context: context}
	p.unknown()
	s := Settings{
		Stage:    p.matching("stage", stagePattern, "a-z, 0-9 and '-', beginning with a letter, at most 16 characters"),
		App:      p.oneOf("app"),
		Channels: p.text("channels"),
		Version:  p.text("version"),
	}
	profile := ProfileDev
	if s.Stage == "prod" {
		profile = ProfileProd
	}
	s.Prod = p.oneOfOr("profile", profile) == ProfileProd
	p.front(&s, region)
	p.network(&s)
	p.nodes(&s)
	p.limits(&s)
	p.doors(&s)
	p.cache(&s)
	p.data(&s)
	p.auth(&s)
	s.AlarmEmail = p.matching("alarmEmail", emailPattern, "one e-mail address")
	s.RunbookURL = p.text("runbookUrl")
	if u, err := url.Parse(s.RunbookURL); s.RunbookURL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.Fragment != "" || len(s.RunbookURL) > maxRunbookURL) {
		p.wrong("runbookUrl", s.RunbookURL, fmt.Sprintf("an https:// address without a fragment, at most %d characters", maxRunbookURL))
	}
	if len(p.errs) > 0 {
		return Settings{}, errors.Join(p.errs...)
	}
	return s, nil
}

// front: how browsers reach the deployment.
func (p *parser) front(s *Settings, region Region) {
	s.Edge = p.oneOf("edge")
	s.DomainName = p.matching("domainName", domainPattern, "a host name such as live.example.com")
	s.CertificateARN = p.matching("certificateArn", certificatePattern, "arn:aws:acm:REGION:ACCOUNT:certificate/ID")
	s.WebACLARN = p.matching("webAclArn", webACLPattern, "arn:aws:wafv2:REGION:ACCOUNT:global|regional/webacl/NAME/ID")
	if s.CertificateARN != "" && s.DomainName == "" {
		p.wrong("certificateArn", s.CertificateARN, "a certificate needs domainName, the name that it is for")
	}
	if s.DomainName != "" && s.CertificateARN == "" {
		p.wrong("domainName", s.DomainName, "a domain needs certificateArn, the certificate for it")
	}
	if s.Edge == EdgeALB && s.DomainName == "" {
		p.wrong("edge", s.Edge, "a public load balancer needs domainName and certificateArn; edge=cloudfront needs neither")
	}
	switch where := arnRegion(s.CertificateARN); {
	case where == "":
	case s.Edge == EdgeCloudFront && where != CloudFrontRegion:
		p.wrong("certificateArn", s.CertificateARN, "CloudFront takes certificates of "+CloudFrontRegion+" only")
	case s.Edge == EdgeALB && region != "" && where != string(region):
		p.wrong("certificateArn", s.CertificateARN, "the load balancer takes certificates of its own region only, "+string(region))
	}
	switch global := strings.Contains(s.WebACLARN, ":global/"); {
	case s.WebACLARN == "":
	case s.Edge == EdgeCloudFront && (!global || arnRegion(s.WebACLARN) != CloudFrontRegion):
		p.wrong("webAclArn", s.WebACLARN, "CloudFront takes web ACLs of scope global, in "+CloudFrontRegion)
	case s.Edge == EdgeALB && global:
		p.wrong("webAclArn", s.WebACLARN, "a load balancer takes web ACLs of scope regional")
	case s.Edge == EdgeALB && region != "" && arnRegion(s.WebACLARN) != string(region):
		p.wrong("webAclArn", s.WebACLARN, "the load balancer takes web ACLs of its own region only, "+string(region))
	}
}

func (p *parser) network(s *Settings) {
	s.Zones = p.list("zones", zonePattern, "zones such as eu-central-1a,eu-central-1b")
	s.VPCID = p.matching("vpcId", vpcPattern, "vpc-…")
	s.SubnetIDs = p.list("subnetIds", subnetPattern, "subnet-…,subnet-…")
	s.PublicSubnetIDs = p.list("publicSubnetIds", subnetPattern, "subnet-…,subnet-…")
	s.Shell = p.flag("shell")
	if n := len(s.Zones); n == 1 || n > maxZones {
		p.wrong("zones", strings.Join(s.Zones, ","), fmt.Sprintf("2 to %d zones", maxZones))
	}
	if s.VPCID == "" {
		for name, ids := range map[string][]string{"subnetIds": s.SubnetIDs, "publicSubnetIds": s.PublicSubnetIDs} {
			if len(ids) > 0 {
				p.wrong(name, strings.Join(ids, ","), "subnets are named together with vpcId")
			}
		}
		return
	}
	if len(s.Zones) == 0 || len(s.SubnetIDs) != len(s.Zones) {
		p.wrong("vpcId", s.VPCID, "an existing VPC needs zones and one subnet of each, in the same order, in subnetIds")
	}
	if s.Edge == EdgeALB && len(s.PublicSubnetIDs) != len(s.Zones) {
		p.wrong("vpcId", s.VPCID, "edge=alb in an existing VPC needs one public subnet of each zone in publicSubnetIds")
	}
	if s.Shell {
		p.wrong("shell", "true", "in an existing VPC its owner makes the endpoints (ssm, ssmmessages, ec2messages)")
	}
}

func (p *parser) nodes(s *Settings) {
	instance, least, most := "t4g.small", "2", "4"
	if s.Prod {
		instance, least, most = "c7g.large", "2", "10"
	}
	s.NodeInstanceType = p.textOr("nodeInstanceType", instance)
	arch, err := ArchOf(s.NodeInstanceType)
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("nodeInstanceType=%s: %w", s.NodeInstanceType, err))
	}
	s.NodeArch = arch
	s.MinNodes = p.number("minNodes", least, 1, maxNodes)
	s.MaxNodes = p.number("maxNodes", most, 1, maxNodes)
	if s.MinNodes > s.MaxNodes && s.MaxNodes > 0 {
		p.wrong("minNodes", fmt.Sprint(s.MinNodes), fmt.Sprintf("at most maxNodes, %d", s.MaxNodes))
	}
	if s.Prod && s.MinNodes == 1 {
		p.wrong("minNodes", "1", "profile=prod keeps at least 2, one in each zone")
	}
	s.ConnectionsPerNode = p.number("connectionsPerNode", "10000", 100, maxConnections)
	s.RefreshAlarms = p.flag("refreshAlarms")
}

// NodeLimit is a setting of nodes that a deployer may set, and its bounds, which are the node's own (a test holds it).
type NodeLimit struct {
	Key, Setting string
	Least, Most  int
}

// NodeLimits are those that depend on who the clients are. The node's other settings are left to its defaults, or to Nodes.Environment of an application's own
// stack.
var NodeLimits = []NodeLimit{
	{"connectionsPerUser", "CONNECTIONS_PER_USER", 1, 10_000_000},
	{"connectionsPerIp", "CONNECTIONS_PER_IP", 1, 10_000_000},
	{"messageBytes", "MESSAGE_BYTES", 1 << 10, 1 << 20},
	{"queueBytes", "QUEUE_BYTES", 128 << 10, 64 << 20},
	{"channelsPerClient", "CHANNELS_PER_CLIENT", 1, 10_000},
}

func (p *parser) limits(s *Settings) {
	s.NodeLimits = map[string]string{}
	for _, l := range NodeLimits {
		if p.set(l.Key) {
			s.NodeLimits[l.Setting] = fmt.Sprint(p.number(l.Key, "", l.Least, l.Most))
		}
	}
	for key, setting := range map[string]string{"compression": "COMPRESSION", "logLevel": "LOG_LEVEL"} {
		if v := p.oneOf(key); v != "" {
			s.NodeLimits[setting] = v
		}
	}
}

// doors that are closed unless they are asked for.
func (p *parser) doors(s *Settings) {
	s.ServerAPISecurityGroup = p.matching("serverApiSecurityGroup", groupPattern, "sg-…")
	if v := p.textOr("logGroups", p.fallback("logGroups")); v != LogGroupsOff {
		s.LiveLogs = true
		if v != LogGroupsOwn {
			s.LogGroups = p.list("logGroups", logGroupPattern, "off, own, or names of log groups, with a '*' at their end or without")
		}
	}
	if n := len(s.LogGroups); n > maxLogGroups {
		p.wrong("logGroups", fmt.Sprint(n, " names"), fmt.Sprintf("at most %d", maxLogGroups))
	}
	if slices.Contains(s.LogGroups, LogGroupsOff) || slices.Contains(s.LogGroups, LogGroupsOwn) {
		p.wrong("logGroups", p.text("logGroups"), "names beside the stack's own, which are always among them; or off")
	}
}

func (p *parser) cache(s *Settings) {
	s.Cache = p.oneOf("cache")
	s.Engine = p.oneOf("engine")
	size := "cache.t4g.micro"
	if s.Prod {
		size = "cache.m7g.large"
	}
	s.CacheNodeType = p.textOr("cacheNodeType", size)
	if !cacheNodePattern.MatchString(s.CacheNodeType) {
		p.wrong("cacheNodeType", s.CacheNodeType, "an ElastiCache node type such as cache.m7g.large")
	}
	s.CacheShards = p.number("cacheShards", "2", 1, maxShards)
	if p.set("cacheShards") && s.Cache != CacheCluster {
		p.wrong("cacheShards", fmt.Sprint(s.CacheShards), "shards need cache=cluster")
	}
	if p.set("cacheNodeType") && s.Cache == CacheServerless {
		p.wrong("cacheNodeType", s.CacheNodeType, "cache=serverless has no node type")
	}
	s.RedisURL = p.text("redisUrl")
	if s.RedisURL == "" {
		return
	}
	if err := checkRedisURL(s.RedisURL); err != nil {
		p.errs = append(p.errs, fmt.Errorf("redisUrl: %w", err)) // without the value: it may hold a password
	}
	for _, name := range []string{"cache", "engine", "cacheNodeType", "cacheShards"} {
		if p.set(name) {
			p.wrong(name, p.text(name), "redisUrl names a cache that exists, so nothing about a new one can be chosen")
		}
	}
}

func (p *parser) data(s *Settings) {
	s.TableName = p.matching("tableName", tablePattern, "a DynamoDB table's name")
	s.TableStreamARN = p.matching("tableStreamArn", streamPattern, "arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/TIME")
	switch {
	case s.TableName == "" && s.TableStreamARN == "":
	case s.TableName == "":
		p.wrong("tableStreamArn", s.TableStreamARN, "the stream of a table that tableName adopts")
	case s.TableStreamARN == "":
		p.wrong("tableName", s.TableName, "an adopted table needs tableStreamArn (aws dynamodb describe-table, LatestStreamArn), or nothing would be announced from it")
	case !strings.Contains(s.TableStreamARN, ":table/"+s.TableName+"/stream/"):
		p.wrong("tableStreamArn", s.TableStreamARN, "the stream of "+s.TableName)
	}
	if s.TableName != "" && s.App == AppNone {
		p.wrong("tableName", s.TableName, "app=none has no table")
	}
}

func (p *parser) auth(s *Settings) {
	s.Auth = p.text("auth")
	if s.Auth == "" && !s.Prod {
		s.Auth = AuthGuest
	}
	if !slices.Contains(allowed["auth"], s.Auth) {
		p.wrong("auth", s.Auth, strings.Join(allowed["auth"], " or ")+"; profile=prod has no default")
	}
	s.OIDCIssuer = p.text("oidcIssuer")
	s.OIDCAudience = p.text("oidcAudience")
	s.OIDCName = p.matching("oidcName", issuerNamePattern, "a-z, 0-9 and '-', at most 32 characters")
	s.OperatorRole = p.textOr("operatorRole", p.fallback("operatorRole"))
	s.RoleClaim = p.textOr("roleClaim", p.fallback("roleClaim"))
	s.Cognito = p.flag("cognito")
	if s.OIDCIssuer != "" && !strings.HasPrefix(s.OIDCIssuer, "https://") {
		p.wrong("oidcIssuer", s.OIDCIssuer, "an https:// address")
	}
	if s.Auth == AuthGuest {
		for _, name := range []string{"oidcIssuer", "oidcAudience", "oidcName", "roleClaim", "operatorRole", "cognito"} {
			if p.set(name) {
				p.wrong(name, p.text(name), "auth=oidc")
			}
		}
		return
	}
	switch {
	case s.Auth != AuthOIDC:
	case s.Cognito && (s.OIDCIssuer != "" || s.OIDCAudience != ""):
		p.wrong("cognito", "true", "the pool is the issuer, so oidcIssuer and oidcAudience stay empty")
	case !s.Cognito && (s.OIDCIssuer == "" || s.OIDCAudience == ""):
		p.wrong("auth", s.Auth, "oidcIssuer and oidcAudience, or cognito=true")
	}
}
