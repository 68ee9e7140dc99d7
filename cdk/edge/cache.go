package edge

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awselasticache"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/jsii-runtime-go"
)

// Kinds of cache.
const (
	CacheNode       = "node"       // one primary and, with Protect, one replica in another zone
	CacheCluster    = "cluster"    // cluster mode: several shards, sharded pub/sub
	CacheServerless = "serverless" // ElastiCache Serverless
)

// Cache says which Redis carries the bus. The zero value is a small Valkey node.
type Cache struct {
	Kind     string // CacheNode when empty
	Engine   string // valkey when empty, or redis
	NodeType string // cache.t4g.micro when empty; not for serverless
	Shards   int    // cluster only; 2 when zero
	// URL names a Redis that exists and that the VPC can reach; nothing is declared then. It holds no password.
	URL string
}

// externalPort is the port of a Redis that exists, or 0.
func (c Cache) externalPort() int {
	u, err := url.Parse(c.URL)
	if c.URL == "" || err != nil {
		return 0
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return redisPort
	}
	return port
}

// cache is what the rest of the edge needs of the declared one. With an existing Redis only url is set.
type cache struct {
	url      *string
	endpoint *string
	name     *string // what an IAM token is signed for: group id or serverless name
	arn      *string
	users    map[string]redisIdentity // by role: node, fn
	kind     string
}

type redisIdentity struct{ user, arn *string }

// Roles of the cache's users: what a role may do is in acl.go.
const (
	roleNode     = "node"
	roleFunction = "fn"
)

// version of each engine: what is asked of ElastiCache, its parameter family, and the major version that serverless takes.
var engines = map[string]struct{ version, family, major string }{
	"valkey": {"8.1", "valkey8", "8"},
	"redis":  {"7.1", "redis7", "7"},
}

func (e *Edge) declareCache() {
	c := e.props.Cache
	if c.URL != "" {
		e.cache = cache{url: str(c.URL), endpoint: str(c.URL)}
		return
	}
	if c.Kind == "" {
		c.Kind = CacheNode
	}
	if c.Engine == "" {
		c.Engine = "valkey"
	}
	if c.NodeType == "" {
		c.NodeType = "cache.t4g.micro"
	}
	if c.Shards == 0 {
		c.Shards = 2
	}
	e.cache.kind = c.Kind
	group := e.declareCacheUsers(c)
	if c.Kind == CacheServerless {
		e.declareServerless(c, group)
	} else {
		e.declareReplicationGroup(c, group)
	}
}

// declareCacheUsers: one user for nodes, one for functions, each signed in by IAM; nobody else.
func (e *Edge) declareCacheUsers(c Cache) awselasticache.CfnUserGroup {
	stack := awscdk.Stack_Of(e)
	ids := []*string{}
	users := []awselasticache.CfnUser{}
	e.cache.users = map[string]redisIdentity{}
	for _, role := range []string{roleNode, roleFunction} {
		name := redisUser(e.props.Stage, role, c.Engine)
		u := awselasticache.NewCfnUser(e, str("CacheUser-"+role), &awselasticache.CfnUserProps{Engine: str(c.Engine),
			UserId: str(name), UserName: str(name), AccessString: str(AccessString(e.props.Stage, role)),
			AuthenticationMode: map[string]any{"Type": "iam"}})
		users, ids = append(users, u), append(ids, str(name))
		e.cache.users[role] = redisIdentity{user: str(name), arn: stack.FormatArn(&awscdk.ArnComponents{
			Service: str("elasticache"), Resource: str("user"), ResourceName: str(name), ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME})}
	}
	if c.Engine == "redis" { // its user groups must hold a user named default; Valkey's can't hold one without a password
		name := redisUser(e.props.Stage, "off", c.Engine)
		u := awselasticache.NewCfnUser(e, str("CacheUser-default"), &awselasticache.CfnUserProps{Engine: str(c.Engine), UserId: str(name),
			UserName: str("default"), AccessString: str("off resetchannels -@all"),
			AuthenticationMode: map[string]any{"Type": "no-password-required"}})
		users, ids = append(users, u), append(ids, str(name))
	}
	group := awselasticache.NewCfnUserGroup(e, str("CacheUsers"), &awselasticache.CfnUserGroupProps{Engine: str(c.Engine),
		UserGroupId: str(redisUser(e.props.Stage, "bus", c.Engine)), UserIds: &ids})
	for _, u := range users {
		group.AddResourceDependency(u, str("user ids are plain strings"))
	}
	return group
}

func (e *Edge) declareReplicationGroup(c Cache, users awselasticache.CfnUserGroup) {
	engine := engines[c.Engine]
	subnets := awselasticache.NewCfnSubnetGroup(e, str("CacheSubnets"), &awselasticache.CfnSubnetGroupProps{
		Description: str("subnets of the bus"), SubnetIds: e.subnetIDs()})
	parameters := map[string]any{
		// Evicting single keys would tear offsets, streams and idempotency ids apart; full is an alarm and an error instead.
		"maxmemory-policy": "noeviction",
		// The replication id, which is part of every epoch, would change when the backlog is freed.
		"repl-backlog-ttl": "0",
	}
	if c.Kind == CacheCluster {
		parameters["cluster-enabled"] = "yes"
	}
	group := awselasticache.NewCfnParameterGroup(e, str("CacheParameters"), &awselasticache.CfnParameterGroupProps{
		CacheParameterGroupFamily: str(engine.family), Description: str("noeviction, steady replication id"), Properties: parameters})
	props := &awselasticache.CfnReplicationGroupProps{
		ReplicationGroupDescription: str("Tideline's bus, stage " + e.props.Stage),
		Engine:                      str(c.Engine), EngineVersion: str(engine.version), CacheNodeType: str(c.NodeType),
		CacheParameterGroupName: group.Ref(), CacheSubnetGroupName: subnets.Ref(), Port: num(redisPort),
		SecurityGroupIds:         jsii.Strings(*e.groups.cache.SecurityGroupId()),
		TransitEncryptionEnabled: true, TransitEncryptionMode: str("required"), AtRestEncryptionEnabled: true,
		UserGroupIds: &[]*string{users.Ref()}, AutoMinorVersionUpgrade: true,
		MultiAzEnabled: e.props.Protect, AutomaticFailoverEnabled: e.props.Protect,
	}
	if e.props.Protect {
		props.SnapshotRetentionLimit = num(snapshotsKept) // chat history lives only here
	}
	replicas := 0
	if e.props.Protect {
		replicas = 1
	}
	scheme := "rediss"
	if c.Kind == CacheCluster {
		scheme = "rediss+cluster"
		props.NumNodeGroups, props.ReplicasPerNodeGroup = num(c.Shards), num(replicas)
		props.AutomaticFailoverEnabled = true // cluster mode takes nothing else
	} else {
		props.NumCacheClusters = num(1 + replicas)
	}
	r := awselasticache.NewCfnReplicationGroup(e, str("Cache"), props)
	Accept(r, "AwsSolutions-AEC6", "AUTH is one password for everybody; users sign in by IAM instead, each with commands of its own")
	Accept(r, "AwsSolutions-AEC5", "only the nodes' and functions' security groups reach the port, so that another number would hide nothing")
	if !e.props.Protect {
		Accept(r, "AwsSolutions-AEC4", "a development stage has one small node; the bus announces what is lost with it")
	}
	if e.props.Protect {
		r.ApplyRemovalPolicy(awscdk.RemovalPolicy_SNAPSHOT, nil)
	}
	endpoint := r.AttrPrimaryEndPointAddress()
	if c.Kind == CacheCluster {
		endpoint = r.AttrConfigurationEndPointAddress()
	}
	e.cache.name, e.cache.endpoint = r.Ref(), endpoint
	e.cache.url = str(fmt.Sprintf("%s://%s:%d", scheme, *endpoint, redisPort))
	e.cache.arn = awscdk.Stack_Of(e).FormatArn(&awscdk.ArnComponents{Service: str("elasticache"), Resource: str("replicationgroup"),
		ResourceName: r.Ref(), ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME})
}

func (e *Edge) declareServerless(c Cache, users awselasticache.CfnUserGroup) {
	name := "tideline-" + e.props.Stage
	props := &awselasticache.CfnServerlessCacheProps{Engine: str(c.Engine), MajorEngineVersion: str(engines[c.Engine].major),
		ServerlessCacheName: str(name), Description: str("Tideline's bus, stage " + e.props.Stage),
		SecurityGroupIds: &[]any{e.groups.cache.SecurityGroupId()}, SubnetIds: e.subnetIDs(), UserGroupId: users.Ref(),
		CacheUsageLimits: &awselasticache.CfnServerlessCache_CacheUsageLimitsProperty{
			DataStorage:   &awselasticache.CfnServerlessCache_DataStorageProperty{Unit: str("GB"), Maximum: num(serverlessMaxGB)},
			EcpuPerSecond: &awselasticache.CfnServerlessCache_ECPUPerSecondProperty{Maximum: num(serverlessMaxCPU)}}}
	if e.props.Protect {
		props.SnapshotRetentionLimit, props.FinalSnapshotName = num(snapshotsKept), str(name+"-final")
	}
	s := awselasticache.NewCfnServerlessCache(e, str("Cache"), props)
	e.cache.name, e.cache.endpoint, e.cache.arn = str(name), s.AttrEndpointAddress(), s.AttrArn()
	e.cache.url = str(fmt.Sprintf("rediss+cluster://%s:%d", *s.AttrEndpointAddress(), redisPort))
}

func (e *Edge) subnetIDs() *[]any {
	ids := []any{}
	for _, id := range *e.VPC.SelectSubnets(e.subnets).SubnetIds {
		ids = append(ids, id)
	}
	return &ids
}

// redisEnvironment tells a process which Redis to use and as whom.
func (e *Edge) redisEnvironment(role string) map[string]*string {
	env := map[string]*string{"STAGE": str(e.props.Stage), "REDIS_URL": e.cache.url}
	if id, ok := e.cache.users[role]; ok {
		env["REDIS_IAM_USER"], env["REDIS_IAM_CACHE"] = id.user, e.cache.name
		if e.cache.kind == CacheServerless {
			env["REDIS_IAM_SERVERLESS"] = str("true")
		}
	}
	return env
}

// grantRedis lets a role sign tokens for its own user of this cache, and no other.
func (e *Edge) grantRedis(to awsiam.IGrantable, role string) {
	if id, ok := e.cache.users[role]; ok {
		Allow(to, []*string{e.cache.arn, id.arn}, "elasticache:Connect")
	}
}

// RedisEndpoint is where the bus is; a token that resolves at deploy.
func (e *Edge) RedisEndpoint() *string { return e.cache.endpoint }
