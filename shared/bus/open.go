package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"tideline/shared/limit"
)

// The numbers of a connection. Nitro instances forget idle TCP connections at 350 s: keepAlive stays below that.
const (
	dialTimeout    = 2 * time.Second
	commandTimeout = 2 * time.Second
	poolWait       = 2 * time.Second
	keepAlive      = 60 * time.Second
	// idleTimeout is short because a frozen Lambda sandbox leaves sockets that are dead when it thaws.
	idleTimeout = 60 * time.Second
	poolPerCPU  = 10
	defaultPort = "6379"
)

var stagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Options of Open.
type Options struct {
	// URL: redis://[user:password@]host:port[/db], rediss:// for TLS, redis+cluster:// and rediss+cluster:// for cluster mode.
	// Several hosts may be given, separated by commas: seeds of a cluster, or else a primary and its replicas, of which the one
	// that says it is the primary is used.
	URL string
	// Stage tags every key and channel: tl:<stage>:… Lower-case letters, digits and hyphens, at most 32 bytes.
	Stage string
	// Credentials, when set, is called at every dial and answers user name and password (an IAM token, say). It replaces what
	// the URL says.
	Credentials func(ctx context.Context) (user, password string, err error)
	// TLS, when set, is used with rediss URLs; ServerName defaults to the host that is dialled.
	TLS *tls.Config
	// PoolSize is the number of command connections (in cluster mode: per shard); 0 means 10 per CPU. Lambda functions use 2.
	PoolSize int
	// RotateMin and RotateMax bound the random age at which a subscriber's connection is replaced; 0 means limit.RotateMin and
	// limit.RotateMax. Command connections are closed at the same age.
	RotateMin, RotateMax time.Duration
	// Log hears what an operator should know; nil discards it.
	Log *slog.Logger
	// Now is the clock that is passed to scripts; nil means time.Now.
	Now func() time.Time
}

// Bus publishes and reads. It is safe for concurrent use.
type Bus struct {
	client  redis.UniversalClient
	cluster *redis.ClusterClient // the same client, in cluster mode; nil otherwise
	dial    endpoint
	prefix  string // "tl:<stage>:"
	log     *slog.Logger
	now     func() time.Time

	rotateMin, rotateMax time.Duration

	proof proofState
	stats counters
}

// endpoint is everything that a connection needs but its address.
type endpoint struct {
	hosts       []string // as the URL names them
	user, pass  string
	db          int
	tls         *tls.Config
	credentials func(ctx context.Context) (string, string, error)
	pool        int
	lifetime    time.Duration // of a command connection
	// current is the index of the host that was last seen to be the primary.
	current *atomic.Uint32
}

// Open connects lazily: it fails on a malformed URL or stage (ErrInvalid), not on a Redis that is away.
func Open(_ context.Context, o Options) (*Bus, error) {
	var errs []error
	if !stagePattern.MatchString(o.Stage) {
		errs = append(errs, fmt.Errorf("%w: Stage %q: want lower-case letters, digits and hyphens, at most 32", ErrInvalid, o.Stage))
	}
	e, inCluster, err := parseURL(o.URL)
	if err != nil {
		errs = append(errs, err)
	}
	if o.PoolSize < 0 {
		errs = append(errs, fmt.Errorf("%w: PoolSize %d", ErrInvalid, o.PoolSize))
	}
	b := &Bus{
		prefix: "tl:" + o.Stage + ":", log: o.Log, now: o.Now,
		rotateMin: o.RotateMin, rotateMax: o.RotateMax,
	}
	if b.rotateMin == 0 {
		b.rotateMin = limit.RotateMin
	}
	if b.rotateMax == 0 {
		b.rotateMax = max(limit.RotateMax, b.rotateMin)
	}
	if b.rotateMin < 0 || b.rotateMax < b.rotateMin {
		errs = append(errs, fmt.Errorf("%w: RotateMin %v, RotateMax %v", ErrInvalid, o.RotateMin, o.RotateMax))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.now == nil {
		b.now = time.Now
	}
	if e.tls != nil && o.TLS != nil {
		e.tls = o.TLS.Clone()
	}
	e.credentials = o.Credentials
	e.pool = o.PoolSize
	if e.pool == 0 {
		e.pool = poolPerCPU * runtime.GOMAXPROCS(0)
	}
	e.lifetime = b.rotateMax
	e.current = new(atomic.Uint32)
	b.dial = e
	if inCluster {
		b.cluster = redis.NewClusterClient(e.clusterOptions())
		b.client = b.cluster
	} else {
		b.client = redis.NewClient(e.options())
	}
	return b, nil
}

// parseURL reads what Options.URL documents. Its errors never show the password.
func parseURL(raw string) (e endpoint, inCluster bool, err error) {
	bad := func(format string, args ...any) (endpoint, bool, error) {
		return endpoint{}, false, fmt.Errorf("%w: URL: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	scheme, rest, _ := strings.Cut(raw, "://")
	switch scheme {
	case "redis":
	case "rediss":
		e.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	case "redis+cluster":
		inCluster = true
	case "rediss+cluster":
		inCluster, e.tls = true, &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return bad("scheme: want redis, rediss, redis+cluster or rediss+cluster")
	}
	// net/url knows one host only: it gets the rest without the hosts.
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	userinfo, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		userinfo, hosts = authority[:i+1], authority[i+1:]
	}
	u, err := url.Parse("redis://" + userinfo + "host" + path)
	if err != nil {
		return bad("can't be parsed")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return bad("no query or fragment is understood")
	}
	e.user = u.User.Username()
	e.pass, _ = u.User.Password()
	if db := strings.TrimPrefix(u.Path, "/"); db != "" {
		if e.db, err = strconv.Atoi(db); err != nil || e.db < 0 || inCluster && e.db != 0 {
			return bad("database %q", db)
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			name, port = strings.Trim(host, "[]"), defaultPort
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil || name == "" {
			return bad("host %q", host)
		}
		e.hosts = append(e.hosts, net.JoinHostPort(name, port))
	}
	return e, inCluster, nil
}

// options of a command client outside cluster mode. The bus retries by itself (see retry), so that every attempt is under its deadline.
func (e endpoint) options() *redis.Options {
	return &redis.Options{
		Addr: e.hosts[0], DB: e.db, Protocol: 2,
		Username: e.user, Password: e.pass, CredentialsProviderContext: e.credentials,
		Dialer: e.dialPrimary, OnConnect: e.refuseReplica,
		DialTimeout: dialTimeout, ReadTimeout: commandTimeout, WriteTimeout: commandTimeout, PoolTimeout: poolWait,
		ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1,
		PoolSize: e.pool, ConnMaxIdleTime: idleTimeout, ConnMaxLifetime: e.lifetime, ConnMaxLifetimeJitter: e.lifetime / 10,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

func (e endpoint) clusterOptions() *redis.ClusterOptions {
	return &redis.ClusterOptions{
		Addrs: e.hosts, Protocol: 2,
		Username: e.user, Password: e.pass, CredentialsProviderContext: e.credentials,
		Dialer:      e.dialAddr,
		DialTimeout: dialTimeout, ReadTimeout: commandTimeout, WriteTimeout: commandTimeout, PoolTimeout: poolWait,
		ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1,
		PoolSize: e.pool, ConnMaxIdleTime: idleTimeout, ConnMaxLifetime: e.lifetime, ConnMaxLifetimeJitter: e.lifetime / 10,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// dialAddr opens one connection, with TLS where the URL asks for it.
func (e endpoint) dialAddr(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAlive, Interval: keepAlive / 4, Count: 4,
	}}
	if e.tls == nil {
		return d.DialContext(ctx, network, addr)
	}
	return (&tls.Dialer{NetDialer: d, Config: e.tls}).DialContext(ctx, network, addr)
}

// dialPrimary dials the host that was last seen to be the primary, and the others when it does not answer.
func (e endpoint) dialPrimary(ctx context.Context, network, _ string) (net.Conn, error) {
	var last error
	for range e.hosts {
		i := e.current.Load()
		c, err := e.dialAddr(ctx, network, e.hosts[int(i)%len(e.hosts)])
		if err == nil {
			return c, nil
		}
		last = err
		e.current.CompareAndSwap(i, i+1)
	}
	return nil, last
}

// refuseReplica closes a new connection to a replica, so that the next dial tries the next host. With one host there is no choice.
func (e endpoint) refuseReplica(ctx context.Context, c *redis.Conn) error {
	if len(e.hosts) < 2 {
		return nil
	}
	i := e.current.Load()
	info, err := c.Info(ctx, "replication").Result()
	if err != nil || !strings.Contains(info, "role:slave") {
		return nil // an unknown role is tried: writes to a replica fail on their own
	}
	e.current.CompareAndSwap(i, i+1)
	return errReplica
}

var errReplica = errors.New("host is a replica")

// LogDriver sends what go-redis logs by itself to log, at debug level: it concerns every client in the process, so programs call it
// and libraries don't. What an operator should know is in Options.Log.
func LogDriver(log *slog.Logger) { redis.SetLogger(driverLog{log}) }

type driverLog struct{ log *slog.Logger }

func (d driverLog) Printf(ctx context.Context, format string, v ...any) {
	d.log.DebugContext(ctx, "go-redis: "+fmt.Sprintf(format, v...))
}

// Close ends the command connections. Subscribers end with the context of their Run.
func (b *Bus) Close() error { return b.client.Close() }

// Ping answers nil when Redis answers, ErrUnavailable otherwise. In cluster mode every shard's primary must answer.
func (b *Bus) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	var err error
	for range b.dial.hosts {
		if b.cluster != nil {
			err = b.cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return c.Ping(ctx).Err() })
		} else {
			err = b.client.Ping(ctx).Err()
		}
		if !errors.Is(err, errReplica) {
			break
		}
	}
	if err != nil {
		return unavailable("ping", err)
	}
	return nil
}

// temporary reports whether asking again may help: the connection failed, or the server said that it can't just now.
func temporary(err error) bool {
	if _, said := errors.AsType[redis.Error](err); !said {
		return !errors.Is(err, redis.ErrClosed)
	}
	for _, prefix := range [...]string{
		"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "BUSY", "NOREPLICAS", "MISCONF",
	} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return strings.Contains(err.Error(), "max number of clients") || errors.Is(err, io.EOF)
}
