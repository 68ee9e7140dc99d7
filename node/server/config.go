package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"tideline/node/aws"
	"tideline/node/serverapi"
	"tideline/node/stream/docker"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/shared/trace/otlp"
)

// Bounds of the settings.
const (
	maxTrustedHops = 8                // proxies between the browser and a node
	maxDrain       = 30 * time.Minute // DRAIN_GRACE, DRAIN_WINDOW and SHED_AGE, each
	maxConnections = 10_000_000       // CONNECTIONS_PER_USER, CONNECTIONS_PER_IP and UNAUTHENTICATED, each
	minMessage     = 1 << 10          // MESSAGE_BYTES
	maxMessage     = 1 << 20
	minQueue       = 2 * limit.DataBytes // QUEUE_BYTES: room for one recovered publication of the largest kind
	maxQueue       = 64 << 20
	maxRate        = 10_000                 // COMMANDS_PER_SECOND and SUBSCRIBES_PER_SECOND, each
	maxChannels    = 10_000                 // CHANNELS_PER_CLIENT
	minHandshake   = 100 * time.Millisecond // HANDSHAKE_TIMEOUT
	maxHandshake   = time.Minute
)

// Config is a node's settings, checked. ParseConfig makes one from the environment, package local fills one in by hand.
type Config struct {
	Public, Private string // listen addresses, host:port
	NodeID          string
	Stage           string
	Zone            string
	RedisURL        string
	TokenSecrets    string // as token.ParseSecrets takes it
	KeysTable       string
	Issuers         []token.Foreign
	APIKeys         string    // of the server API, as serverapi.ParseKeys takes them
	APIKeysFile     string    // or a file that has them; with neither there is no server API
	RedisIAM        aws.Redis // User empty: the URL's user and password
	AllowedOrigins  []string
	ConnectOrigins  []string
	TrustedHops     int
	Scheme          string // of the address that browsers use: http or https
	DrainGrace      time.Duration
	DrainWindow     time.Duration
	MetadataURL     string         // of the EC2 instance metadata service; empty is not asked
	LifecycleHook   string         // to complete after an ordered drain; empty: none
	Namespace       string         // of CloudWatch, for the key figures; empty: none are sent
	Channels        *channel.Table // nil: the shipped ones
	Compression     bool
	// ConnectionsPerUser and ConnectionsPerIP are over the whole fleet.
	ConnectionsPerUser, ConnectionsPerIP int
	// What one connection may take, and how many of this node may wait to be authenticated.
	MessageBytes, QueueBytes, ChannelsPerClient, CommandsPerSecond, SubscribesPerSecond, Unauthenticated int

	HandshakeTimeout time.Duration
	ShedAge          time.Duration
	DockerHost       string // empty: no channels of containers
	DockerCerts      string
	LogGroups        bool // CloudWatch log groups as channels
	LogLevel         slog.Level
	LogText          bool // for a person; false is JSON
	Tracing          otlp.Settings
}

// setting is one environment variable.
type setting struct{ name, fallback, help string }

var settings = []setting{
	{"PORT", "8000", "public port: sockets and the page. A number, or host:port to listen on one address; 0 takes a free port"},
	{"PRIVATE_PORT", "9000", "private port: health, metrics, profiles. Same forms as PORT. Never expose it to the internet"},
	{"NODE_ID", "", "name of this node, unique in the fleet; up to 64 of A-Z a-z 0-9 . _ - (default: host name and a random part)"},
	{"STAGE", "dev", "deployment that this node belongs to; part of every key in Redis; up to 32 of a-z 0-9 -"},
	{"REDIS_URL", "", "required. redis://, rediss:// (TLS), redis+cluster:// or rediss+cluster:// with [user:password@]host:port"},
	{"REDIS_IAM_USER", "", "sign in to ElastiCache as this IAM user, with a token signed at every connection; with REDIS_IAM_CACHE"},
	{"REDIS_IAM_CACHE", "", "name of the cache, or replication group, that the token is for"},
	{"REDIS_IAM_SERVERLESS", "false", "true for a serverless cache"},
	{"KEYS_TABLE", "", "DynamoDB table of the key ring that verifies tokens; this or TOKEN_SECRETS is required, both are allowed"},
	{"OIDC_ISSUERS", "", "JSON list of OpenID Connect issuers whose tokens are taken, too; their keys come from KEYS_TABLE"},
	{"TOKEN_SECRETS", "", "Secrets of access tokens, comma separated, at least 32 bytes each, or @/path/of/a/file that has them and is read again when it changes"},
	{"API_KEYS", "", "keys of the server API on the private port, comma separated, the newest first; at least 32 bytes each (default: no server API)"},
	{"API_KEYS_FILE", "", "file that has them instead, and is read again when it changes"},
	{"ALLOWED_ORIGINS", "", "origins whose pages may open sockets here, comma separated, such as https://app.example.com (default: the page's own host only)"},
	{"CONNECT_ORIGINS", "", "origins beside its own that the page's scripts may send requests to, comma separated: the bucket of uploads, say"},
	{"TRUSTED_HOPS", "0", "proxies in front, 0 to 8: the client's address is taken from X-Forwarded-For, this many from the right"},
	{"PUBLIC_SCHEME", "http", "http or https: how browsers reach the deployment"},
	{"ZONE", "", "availability zone, shown in the registry of nodes (default: what METADATA_URL says)"},
	{"DRAIN_GRACE", limit.DrainGrace.String(), "after SIGTERM: how long to serve on, not ready, while the load balancer notices"},
	{"DRAIN_WINDOW", limit.DrainWindow.String(), "then: the time over which the clients are closed, in random order"},
	{"METADATA_URL", "", "EC2 instance metadata service to watch for the instance's end, http://169.254.169.254 there (default: not watched)"},
	{"LIFECYCLE_HOOK", "", "lifecycle hook of the instance's Auto Scaling group to complete after an ordered drain; needs METADATA_URL"},
	{"METRICS_NAMESPACE", "", "CloudWatch namespace that the key figures are sent to, every " + limit.MetricsInterval.String() + " (default: not sent); needs METADATA_URL"},
	{"CONNECTIONS_PER_USER", strconv.Itoa(limit.ConnectionsPerUser), "most connections of one user in the whole fleet"},
	{"CONNECTIONS_PER_IP", strconv.Itoa(limit.ConnectionsPerIP), "most connections of one address in the whole fleet"},
	{"MESSAGE_BYTES", strconv.Itoa(limit.MessageBytes), "largest frame that a client may send"},
	{"QUEUE_BYTES", strconv.Itoa(limit.QueueBytes), "most that waits for one connection before it is closed as slow; half of it bounds a reply"},
	{"CHANNELS_PER_CLIENT", strconv.Itoa(limit.ChannelsPerClient), "most subscriptions of one connection"},
	{"COMMANDS_PER_SECOND", strconv.Itoa(limit.CommandsPerSecond), "commands of one connection; ten seconds' worth may come at once"},
	{"SUBSCRIBES_PER_SECOND", strconv.Itoa(limit.SubscribesPerSecond), "subscribe commands of one connection; twice CHANNELS_PER_CLIENT may come at once"},
	{"UNAUTHENTICATED", strconv.Itoa(limit.Unauthenticated), "most connections of this node that have not authenticated yet"},
	{"HANDSHAKE_TIMEOUT", limit.HandshakeTimeout.String(), "how long a connection may take to authenticate"},
	{"SHED_AGE", limit.ShedAge.String(), "how old a connection must be to be moved from a node far above the fleet's mean; at least as long as the load balancer's affinity cookie"},
	{"CHANNELS_FILE", "", "JSON file of the namespaces: who may subscribe and publish, history, presence (default: the shipped ones); docs/protocol.md has its form"},
	{"DOCKER_HOST", "", "Docker Engine whose containers' logs and events operators may watch, unix:///path or tcp://host:port (default: none); the same on all nodes. Whoever has this socket has its host"},
	{"DOCKER_CERT_PATH", "", "folder with ca.pem, cert.pem and key.pem, for a DOCKER_HOST of tcp:// with TLS"},
	{"LOG_GROUPS", "off", "on lets operators watch CloudWatch log groups; the same on all nodes. Needs logs:StartLiveTail and logs:DescribeLogGroups"},
	{"COMPRESSION", "off", "on offers permessage-deflate to clients: less traffic for more CPU and memory"},
	{"LOG_LEVEL", "info", "debug, info, warn or error"},
	{"LOG_FORMAT", "json", "json, or text for a person"},
	{otlp.EndpointVariable, "", "collector that spans are sent to, by OTLP over HTTP, such as http://127.0.0.1:4318 (default: none are recorded); OpenTelemetry's other variables hold too"},
	{otlp.ExporterVariable, "", "otlp sends spans to the endpoint's default, none sends none although an endpoint is named"},
}

var (
	nodeIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	hookPattern   = regexp.MustCompile(`^[A-Za-z0-9_/-]{1,255}$`)
	spacePattern  = regexp.MustCompile(`^[A-Za-z0-9._/#-]{1,255}$`)
	stagePattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
)

// ParseConfig reads the settings. The error names every variable that is wrong, one a line, and never quotes a secret.
func ParseConfig(getenv func(string) string) (Config, error) {
	p := parser{getenv: getenv}
	c := Config{
		Public:         p.address("PORT"),
		Private:        p.address("PRIVATE_PORT"),
		NodeID:         p.matching("NODE_ID", nodeIDPattern),
		Stage:          p.matching("STAGE", stagePattern),
		Zone:           p.matching("ZONE", nodeIDPattern),
		RedisURL:       p.redis("REDIS_URL"),
		TokenSecrets:   p.secrets("TOKEN_SECRETS"),
		KeysTable:      p.get("KEYS_TABLE"),
		Issuers:        p.issuers("OIDC_ISSUERS"),
		RedisIAM:       aws.Redis{User: p.get("REDIS_IAM_USER"), Cache: p.get("REDIS_IAM_CACHE"), Serverless: p.oneOf("REDIS_IAM_SERVERLESS", "false", "true") == "true"},
		APIKeys:        p.apiKeys("API_KEYS"),
		APIKeysFile:    p.apiKeysFile("API_KEYS_FILE"),
		AllowedOrigins: p.origins("ALLOWED_ORIGINS"),
		ConnectOrigins: p.origins("CONNECT_ORIGINS"),
		TrustedHops:    p.number("TRUSTED_HOPS", 0, maxTrustedHops),
		Scheme:         p.oneOf("PUBLIC_SCHEME", "http", "https"),
		DrainGrace:     p.duration("DRAIN_GRACE", 0, maxDrain),
		DrainWindow:    p.duration("DRAIN_WINDOW", 0, maxDrain),
		MetadataURL:    p.url("METADATA_URL"),
		LifecycleHook:  p.matching("LIFECYCLE_HOOK", hookPattern),
		Namespace:      p.matching("METRICS_NAMESPACE", spacePattern),
		Channels:       p.channels("CHANNELS_FILE"),
		Compression:    p.oneOf("COMPRESSION", "off", "on") == "on",
		ShedAge:        p.duration("SHED_AGE", 0, maxDrain),
		DockerHost:     p.get("DOCKER_HOST"),
		DockerCerts:    p.get("DOCKER_CERT_PATH"),
		LogGroups:      p.oneOf("LOG_GROUPS", "off", "on") == "on",

		ConnectionsPerUser:  p.number("CONNECTIONS_PER_USER", 1, maxConnections),
		ConnectionsPerIP:    p.number("CONNECTIONS_PER_IP", 1, maxConnections),
		MessageBytes:        p.number("MESSAGE_BYTES", minMessage, maxMessage),
		QueueBytes:          p.number("QUEUE_BYTES", minQueue, maxQueue),
		ChannelsPerClient:   p.number("CHANNELS_PER_CLIENT", 1, maxChannels),
		CommandsPerSecond:   p.number("COMMANDS_PER_SECOND", 1, maxRate),
		SubscribesPerSecond: p.number("SUBSCRIBES_PER_SECOND", 1, maxRate),
		Unauthenticated:     p.number("UNAUTHENTICATED", 1, maxConnections),
		HandshakeTimeout:    p.duration("HANDSHAKE_TIMEOUT", minHandshake, maxHandshake),
		LogText:             p.oneOf("LOG_FORMAT", "json", "text") == "text",
	}
	tracing, err := otlp.Parse(getenv)
	if c.Tracing = tracing; err != nil {
		p.errs = append(p.errs, err)
	}
	if err := c.LogLevel.UnmarshalText([]byte(p.oneOf("LOG_LEVEL", "debug", "info", "warn", "error"))); err != nil {
		c.LogLevel = slog.LevelInfo // oneOf has reported it
	}
	if c.TokenSecrets == "" && c.KeysTable == "" {
		p.wrong("TOKEN_SECRETS", "missing, and so is KEYS_TABLE: tokens can't be verified. Make a secret with: openssl rand -hex 32")
	}
	if c.APIKeys != "" && c.APIKeysFile != "" {
		p.wrong("API_KEYS", "and API_KEYS_FILE exclude each other")
	}
	if (c.RedisIAM.User == "") != (c.RedisIAM.Cache == "") {
		p.wrong("REDIS_IAM_USER", "and REDIS_IAM_CACHE belong together")
	}
	if c.LifecycleHook != "" && c.MetadataURL == "" {
		p.wrong("LIFECYCLE_HOOK", "needs METADATA_URL: that is where the instance and its group are named")
	}
	if c.Namespace != "" && c.MetadataURL == "" {
		p.wrong("METRICS_NAMESPACE", "needs METADATA_URL: that is where the instance's group is named")
	}
	if strings.HasPrefix(c.Namespace, "AWS/") {
		p.wrong("METRICS_NAMESPACE", "%q: namespaces that begin with AWS/ are AWS's own", c.Namespace)
	}
	if len(c.Issuers) > 0 && c.KeysTable == "" {
		p.wrong("OIDC_ISSUERS", "needs KEYS_TABLE: that is where issuers' keys are")
	}
	if c.DockerHost != "" {
		if err := docker.CheckHost(c.DockerHost, c.DockerCerts); err != nil {
			p.wrong("DOCKER_HOST", "%w", err)
		}
	} else if c.DockerCerts != "" {
		p.wrong("DOCKER_CERT_PATH", "is set without DOCKER_HOST")
	}
	if c.NodeID == "" {
		c.NodeID = defaultNodeID()
	}
	if c.Public == c.Private && c.Public != "" && !strings.HasSuffix(c.Public, ":0") {
		p.wrong("PRIVATE_PORT", "is the same as PORT")
	}
	return c, errors.Join(p.errs...)
}

func defaultNodeID() string {
	host, err := os.Hostname()
	if err != nil || !nodeIDPattern.MatchString(host) || len(host) > 48 {
		host = "node"
	}
	return host + "-" + strings.ToLower(rand.Text()[:6])
}

// parser collects every mistake, so that one start tells all of them.
type parser struct {
	getenv func(string) string
	errs   []error
}

func (p *parser) wrong(name, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: "+format, append([]any{name}, args...)...))
}

func (p *parser) get(name string) string {
	for _, s := range settings {
		if s.name == name {
			return cmp.Or(strings.TrimSpace(p.getenv(name)), s.fallback)
		}
	}
	panic("setting not in the table: " + name) // so that --help can't miss one
}

func (p *parser) address(name string) string {
	v := p.get(name)
	if !strings.Contains(v, ":") {
		v = ":" + v
	}
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		p.wrong(name, "%q is neither a port nor host:port", v)
		return ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		p.wrong(name, "port %q is not a number from 0 to 65535", port)
		return ""
	} else {
		return net.JoinHostPort(host, strconv.FormatUint(n, 10))
	}
}

func (p *parser) matching(name string, pattern *regexp.Regexp) string {
	v := p.get(name)
	if v != "" && !pattern.MatchString(v) {
		p.wrong(name, "%q does not match %s", v, pattern)
	}
	return v
}

func (p *parser) oneOf(name string, allowed ...string) string {
	v := p.get(name)
	for _, a := range allowed {
		if strings.EqualFold(v, a) {
			return a
		}
	}
	p.wrong(name, "%q is none of %s", v, strings.Join(allowed, ", "))
	return ""
}

func (p *parser) number(name string, low, high int) int {
	n, err := strconv.Atoi(p.get(name))
	if err != nil || n < low || n > high {
		p.wrong(name, "%q is not a number from %d to %d", p.get(name), low, high)
	}
	return n
}

func (p *parser) duration(name string, low, high time.Duration) time.Duration {
	d, err := time.ParseDuration(p.get(name))
	if err != nil || d < low || d > high {
		p.wrong(name, "%q is not a duration from %s to %s, such as 20s", p.get(name), low, high)
	}
	return d
}

// url takes an http address, or nothing.
func (p *parser) url(name string) string {
	v := p.get(name)
	if u, err := url.Parse(v); v != "" && (err != nil || u.Scheme != "http" || u.Host == "") {
		p.wrong(name, "%q is not an address such as http://169.254.169.254", v)
	}
	return v
}

func (p *parser) channels(name string) *channel.Table {
	t, err := channel.Load(p.get(name))
	if err != nil {
		p.wrong(name, "%w", err)
	}
	return t
}

func (p *parser) issuers(name string) []token.Foreign {
	v := p.get(name)
	if v == "" {
		return nil
	}
	list, err := token.ParseIssuers(v)
	if err != nil {
		p.wrong(name, "%w", err)
	}
	return list
}

// redis lets the bus judge the URL: opening one doesn't connect, and its errors hold no password.
func (p *parser) redis(name string) string {
	v := p.get(name)
	if v == "" {
		p.wrong(name, "missing, such as redis://127.0.0.1:6379")
		return ""
	}
	b, err := bus.Open(context.Background(), bus.Options{URL: v, Stage: "check"})
	if err != nil {
		p.wrong(name, "%w", err)
		return ""
	}
	if err := b.Close(); err != nil {
		p.wrong(name, "%w", err)
	}
	return v
}

func (p *parser) secrets(name string) string {
	v := p.get(name)
	if v == "" {
		return ""
	}
	if _, err := token.ParseSecrets(v, nil, nil); err != nil {
		p.wrong(name, "%w", err)
	}
	return v
}

func (p *parser) apiKeys(name string) string {
	v := p.get(name)
	if v == "" {
		return ""
	}
	if _, err := serverapi.ParseKeys(v); err != nil {
		p.wrong(name, "%w", err)
	}
	return v
}

func (p *parser) apiKeysFile(name string) string {
	v := p.get(name)
	if v == "" {
		return ""
	}
	if _, err := serverapi.OpenKeys(v, nil); err != nil {
		p.wrong(name, "%w", err)
	}
	return v
}

func (p *parser) origins(name string) []string {
	origins := split(p.get(name))
	for _, o := range origins {
		u, err := url.Parse(o)
		switch {
		case o == "*":
			p.wrong(name, "* would let any site use a visitor's session; list the origins")
		case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || o != u.Scheme+"://"+u.Host:
			p.wrong(name, "%q is not an origin of the form https://host or https://host:port", o)
		}
	}
	return origins
}

func split(list string) []string {
	var parts []string
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// Help prints what every variable means.
func Help(w io.Writer) {
	fmt.Fprint(w, "Usage: node [--version] [--help]\n\nA Tideline node: holds sockets and serves the page. Settings come from the environment:\n\n")
	for _, s := range settings {
		fmt.Fprintf(w, "  %-20s %s", s.name, s.help)
		if s.fallback != "" {
			fmt.Fprintf(w, " (default: %s)", s.fallback)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "\nSIGTERM or Ctrl-C drains and stops; a second one ends at once.\n")
}
