package settings

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Key is one context key, for the page that lists them.
type Key struct{ Name, Default, Help string }

// Keys lists every context key that a deployment knows, in the order of the documentation.
var Keys = []Key{
	{"stage", "dev", "name of the deployment; the stack is tideline-<stage>"},
	{"profile", "", "dev or prod: sizes, and whether data outlives the stack (default: prod for stage prod, else dev)"},
	{"app", AppTodo, "todo, or none for the edge alone"},
	{"channels", "", "JSON file of namespaces, see docs/protocol.md (default: those that ship)"},
	{"version", "", "shown in tags and outputs (default: git describe)"},
	{"edge", EdgeCloudFront, "cloudfront or alb; fixed for a stack's life"},
	{"domainName", "", "own host name; needs certificateArn"},
	{"certificateArn", "", "ACM certificate: in us-east-1 for cloudfront, in the stack's region for alb"},
	{"webAclArn", "", "web ACL: scope global for cloudfront, regional for alb"},
	{"zones", "", "availability zones, comma separated (default: the region's first two); fixed for a stack's life"},
	{"vpcId", "", "an existing VPC; needs zones and subnetIds"},
	{"subnetIds", "", "one private or isolated subnet per zone of the existing VPC"},
	{"publicSubnetIds", "", "one public subnet per zone of the existing VPC, for edge=alb"},
	{"shell", "false", "true adds Session Manager and its three endpoints"},
	{"nodeInstanceType", "", "EC2 type of the nodes (default: t4g.small, prod c7g.large)"},
	{"minNodes", "", "fewest nodes (default 2)"},
	{"maxNodes", "", "most nodes (default 4, prod 10)"},
	{"connectionsPerNode", "10000", "connections per node that scaling aims at"},
	{"connectionsPerUser", "", "most connections of one user in the whole fleet (default 200)"},
	{"connectionsPerIp", "", "most connections of one address in the whole fleet (default 5,000); more where many sit behind one"},
	{"messageBytes", "", "largest frame that a client may send (default 131,072)"},
	{"queueBytes", "", "most that waits for one connection before it is closed as slow (default 1,048,576)"},
	{"channelsPerClient", "", "most subscriptions of one connection (default 512)"},
	{"compression", "", "on offers permessage-deflate: less traffic for more processor and memory (default off)"},
	{"logLevel", "", "of nodes: debug, info, warn or error (default info)"},
	{"logGroups", LogGroupsOff, "log groups that operators may watch: off, own (the stack's), or names of others beside them, comma separated, '*' at the end for the rest of a name"},
	{"serverApiSecurityGroup", "", "sg-… whose members may call the server API, through a load balancer of its own (default: closed)"},
	{"refreshAlarms", "true", "false rolls out although an alarm is on"},
	{"cache", CacheNode, "node, cluster or serverless"},
	{"engine", EngineValkey, "valkey or redis"},
	{"cacheNodeType", "", "ElastiCache node type (default: cache.t4g.micro, prod cache.m7g.large)"},
	{"cacheShards", "2", "shards, for cache=cluster"},
	{"redisUrl", "", "a Redis that exists: redis://, rediss://, redis+cluster:// or rediss+cluster://, without a password"},
	{"tableName", "", "adopts a retained or restored table; needs tableStreamArn"},
	{"tableStreamArn", "", "stream of the adopted table"},
	{"auth", "", "guest or oidc (default: guest; prod must choose)"},
	{"oidcIssuer", "", "address of the OIDC issuer"},
	{"oidcAudience", "", "audience (client id) that tokens must carry"},
	{"oidcName", "oidc", "begins the names of the issuer's users; can't change later"},
	{"roleClaim", "roles", "claim that lists roles; a path with dots for a nested one"},
	{"operatorRole", "operator", "role that makes an operator"},
	{"cognito", "false", "true makes a Cognito user pool with a login page and uses it as issuer"},
	{"alarmEmail", "", "address that alarms are sent to"},
	{"runbookUrl", "", "where your people read docs/operations.md, for the links of alarms and dashboard (default: its path)"},
}

// allowed words of the keys that take one of a few.
var allowed = map[string][]string{
	"profile": {ProfileDev, ProfileProd},
	"app":     {AppTodo, AppNone},
	"edge":    {EdgeCloudFront, EdgeALB},
	"cache":   {CacheNode, CacheCluster, CacheServerless},
	"engine":  {EngineValkey, EngineRedis},
	"auth":    {AuthGuest, AuthOIDC},

	"compression": {"", "on", "off"},
	"logLevel":    {"", "debug", "info", "warn", "error"},
}

// cdkKeys are keys without punctuation that the CDK's command line itself may add.
var cdkKeys = []string{"acknowledged-issue-numbers", "cli-telemetry"}

var (
	stagePattern       = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}[a-z0-9]$|^[a-z]$`)
	domainPattern      = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$`)
	certificatePattern = regexp.MustCompile(`^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[A-Za-z0-9-]+$`)
	webACLPattern      = regexp.MustCompile(`^arn:aws[a-z-]*:wafv2:[a-z0-9-]+:\d{12}:(global|regional)/webacl/[^/]+/[^/]+$`)
	zonePattern        = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-\d[a-z]$`)
	vpcPattern         = regexp.MustCompile(`^vpc-[0-9a-f]{8,17}$`)
	subnetPattern      = regexp.MustCompile(`^subnet-[0-9a-f]{8,17}$`)
	groupPattern       = regexp.MustCompile(`^sg-[0-9a-f]{8,17}$`)
	logGroupPattern    = regexp.MustCompile(`^[A-Za-z0-9_./#-]{1,511}\*?$`)
	cacheNodePattern   = regexp.MustCompile(`^cache\.[a-z0-9]+\.[a-z0-9]+$`)
	tablePattern       = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,255}$`)
	streamPattern      = regexp.MustCompile(`^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:\d{12}:table/[A-Za-z0-9_.-]+/stream/[0-9T:.-]+$`)
	issuerNamePattern  = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	emailPattern       = regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[^@\s]+$`)
)

// parser collects every mistake, so that one attempt shows them all.
type parser struct {
	context map[string]any
	errs    []error
}

func (p *parser) wrong(name, value, want string) {
	p.errs = append(p.errs, fmt.Errorf("%s=%s: %s", name, value, want))
}

// unknown refuses keys that nobody reads: a misspelt one would be ignored in silence.
func (p *parser) unknown() {
	var names []string
	for name := range p.context {
		foreign := strings.ContainsAny(name, ":/@") || slices.Contains(cdkKeys, name)
		if !foreign && !slices.ContainsFunc(Keys, func(k Key) bool { return k.Name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		all := make([]string, len(Keys))
		for i, k := range Keys {
			all[i] = k.Name
		}
		p.wrong(name, fmt.Sprint(p.context[name]), "no such setting; there are "+strings.Join(all, ", "))
	}
}

func (p *parser) set(name string) bool { return p.text(name) != "" }

func (p *parser) text(name string) string {
	switch v := p.context[name].(type) {
	case nil:
		return ""
	case string:
		return strings.TrimSpace(v)
	default: // -c gives strings; cdk.json may hold numbers and booleans
		return fmt.Sprint(v)
	}
}

func (p *parser) textOr(name, fallback string) string { return cmp.Or(p.text(name), fallback) }

func (p *parser) fallback(name string) string {
	for _, k := range Keys {
		if k.Name == name {
			return k.Default
		}
	}
	panic("setting not in Keys: " + name) // so that the documentation can't miss one
}

func (p *parser) oneOf(name string) string { return p.oneOfOr(name, p.fallback(name)) }

func (p *parser) oneOfOr(name, fallback string) string {
	v := p.textOr(name, fallback)
	if !slices.Contains(allowed[name], v) {
		p.wrong(name, v, strings.TrimPrefix(strings.Join(allowed[name], " or "), " or "))
	}
	return v
}

func (p *parser) matching(name string, pattern *regexp.Regexp, want string) string {
	v := p.textOr(name, p.fallback(name))
	if v != "" && !pattern.MatchString(v) {
		p.wrong(name, v, want)
	}
	return v
}

func (p *parser) list(name string, pattern *regexp.Regexp, want string) []string {
	if !p.set(name) {
		return nil
	}
	var out []string
	for v := range strings.SplitSeq(p.text(name), ",") {
		v = strings.TrimSpace(v)
		switch {
		case !pattern.MatchString(v):
			p.wrong(name, v, want)
		case slices.Contains(out, v):
			p.wrong(name, v, "each only once")
		}
		out = append(out, v)
	}
	return out
}

func (p *parser) flag(name string) bool {
	switch v := p.textOr(name, p.fallback(name)); v {
	case "true":
		return true
	case "false":
		return false
	default:
		p.wrong(name, v, "true or false")
		return false
	}
}

func (p *parser) number(name, fallback string, least, most int) int {
	v := p.textOr(name, fallback)
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		p.wrong(name, v, fmt.Sprintf("a number from %d to %d", least, most))
		return 0
	}
	return n
}

// arnRegion is the fourth field of an ARN, or empty.
func arnRegion(arn string) string {
	if f := strings.Split(arn, ":"); len(f) > 3 {
		return f[3]
	}
	return ""
}

// checkRedisURL never quotes the value.
func checkRedisURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.User != nil:
		return errors.New("holds a user or a password, which everybody who may read the stack's template could read")
	case !slices.Contains([]string{"redis", "rediss", "redis+cluster", "rediss+cluster"}, u.Scheme):
		return fmt.Errorf("scheme %q: redis, rediss, redis+cluster or rediss+cluster", u.Scheme)
	case u.Hostname() == "" || u.Port() == "":
		return errors.New("needs host:port")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("takes no query and no fragment")
	}
	return nil
}
