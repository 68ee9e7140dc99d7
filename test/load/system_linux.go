package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tideline/shared/bus"
	"tideline/shared/token"
	"tideline/test/fleet"
	"tideline/test/load/swarm"
	"tideline/test/redistest"
)

// What every system with history keeps of a channel.
const (
	historySize = 100
	historyTTL  = 5 * time.Minute
)

// apiKey opens Tideline's server API.
const apiKey = "the-load-generators-key-of-32-bytes-at-least"

// namespace of Tideline's channels: with history, recovery and permissions.
const namespace = `{"namespaces":[{"name":"bench","subscribe":"signed-in","publish":"nobody","history":{"size":100,"ttl":"5m"},"recover":true}]}`

// kind is one of the systems that are compared.
type kind struct {
	name    string
	dialect swarm.Dialect
	start   func(e *environment, s *system) error
	// recovers: nothing is lost when a node is.
	recovers bool
}

var kinds = []kind{
	{"tideline", swarm.Centrifuge{}, startTideline, true},
	{"floor", swarm.Floor{}, peer("floor"), false},
	{"centrifuge", swarm.Centrifuge{}, peer("centrifuge"), false},
	{"centrifuge-history", swarm.Centrifuge{}, peer("centrifuge", "HISTORY="+strconv.Itoa(historySize)), true},
	{"socketio", swarm.SocketIO{}, startSocketIO, false},
}

func kindOf(name string) (kind, error) {
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("no such system: %q", name)
}

// environment is what the systems are started in.
type environment struct {
	folder string // of the built programs
	root   string // of the repository
	// pin: servers on core 0, Redis and the generator on core 1.
	pin bool
	// node is Tideline's binary.
	node string
	// profiles is the folder for profiles of Tideline's first node; empty: none are taken.
	profiles string
}

// system is one running system: a Redis, and two processes that hold sockets.
type system struct {
	kind    kind
	scope   *redistest.Scope
	env     *environment
	redis   *redistest.Server
	nodes   []*fleet.Process
	targets []netip.AddrPort
	// publish by way of Redis, as whoever holds no sockets does.
	publish func(ctx context.Context, channel string, data []byte) error
	// publishHTTP by way of the nodes; nil where that makes no difference.
	publishHTTP func(ctx context.Context, channel string, data []byte) error
	token       func(i int) string
	private     []string // base URLs of the nodes' private ports, where there are such
	stop        []func()
}

// start starts a system with n processes. End ends it, also after an error.
func (e *environment) start(k kind, n int) (s *system, err error) {
	s = &system{kind: k, scope: &redistest.Scope{}, env: e}
	defer func() {
		if p := recover(); p != nil { // what Scope makes of a failure
			err = fmt.Errorf("%s: %v", k.name, p)
		}
	}()
	s.redis = redistest.Start(s.scope)
	for i := range n {
		if err := k.start(e, s); err != nil {
			return s, fmt.Errorf("%s: process %d: %w", k.name, i, err)
		}
	}
	return s, nil
}

// End ends everything.
func (s *system) End() {
	for _, f := range s.stop {
		f()
	}
	s.scope.End()
}

// run starts a program that holds sockets, and waits for the line that says where; the pattern has the address in its first group.
func (s *system) run(pattern, path string, env []string, args ...string) (*fleet.Process, []string) {
	if s.env.pin {
		path, args = "taskset", append([]string{"-c", serverCore, path}, args...)
	}
	p := fleet.Run(s.scope, s.kind.name, path, env, args...)
	return p, p.Await(pattern)
}

func (s *system) joined(p *fleet.Process, addr string) error {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	s.nodes, s.targets = append(s.nodes, p), append(s.targets, a)
	return nil
}

func startTideline(e *environment, s *system) error {
	secret := fleet.Secret
	channels := filepath.Join(e.folder, "channels.json")
	if err := os.WriteFile(channels, []byte(namespace), 0o600); err != nil {
		return err
	}
	p, found := s.run(`"node ready".*"public":"([^"]+)","private":"([^"]+)"`, e.node, []string{
		"PORT=127.0.0.1:0", "PRIVATE_PORT=127.0.0.1:0", "NODE_ID=node-" + strconv.Itoa(len(s.nodes)+1), "STAGE=bench",
		"REDIS_URL=" + s.redis.URL(), "TOKEN_SECRETS=" + secret, "CHANNELS_FILE=" + channels, "API_KEYS=" + apiKey,
		"CONNECTIONS_PER_IP=100000", "DRAIN_GRACE=0s", "DRAIN_WINDOW=0s"})
	if err := s.joined(p, found[1]); err != nil {
		return err
	}
	s.private = append(s.private, "http://"+found[2])
	if len(s.nodes) > 1 {
		return nil
	}
	b, err := bus.Open(context.Background(), bus.Options{URL: s.redis.URL(), Stage: "bench"})
	if err != nil {
		return err
	}
	s.stop = append(s.stop, func() { _ = b.Close() })
	s.publish = func(ctx context.Context, channel string, data []byte) error {
		_, err := b.Publish(ctx, bus.Publication{Channel: channel, Data: data, History: bus.History{Size: historySize, TTL: historyTTL}})
		return err
	}
	s.publishHTTP = post(func(channel string, data []byte) (*http.Request, error) {
		body := fmt.Sprintf(`{"channel":%q,"data":%s}`, channel, data)
		r, err := http.NewRequest(http.MethodPost, "http://"+found[2]+"/api/publish", strings.NewReader(body))
		if err == nil {
			r.Header.Set("X-API-Key", apiKey)
		}
		return r, err
	})
	signer, err := token.NewSecrets([]string{secret}, nil)
	if err != nil {
		return err
	}
	s.token = tokens(signer)
	return nil
}

// tokens signs one token for a hundred connections.
func tokens(signer *token.Secrets) func(int) string {
	signed := map[int]string{}
	return func(i int) string {
		user := i / 100
		if signed[user] == "" {
			raw, err := signer.Sign(token.Claims{User: "user-" + strconv.Itoa(user), Expires: time.Now().Add(time.Hour)})
			if err != nil {
				panic(err) // the claims are constants
			}
			signed[user] = raw
		}
		return signed[user]
	}
}

// peer starts one of test/load/peers.
func peer(which string, env ...string) func(e *environment, s *system) error {
	return func(e *environment, s *system) error {
		path := filepath.Join(e.folder, "peers")
		env := append([]string{"PORT=127.0.0.1:0", "REDIS=" + s.redis.Addr()}, env...)
		p, found := s.run(`^ready (\S+)`, path, env, which)
		if err := s.joined(p, found[1]); err != nil || len(s.nodes) > 1 {
			return err
		}
		// Who publishes by way of Redis is a process of its own, without clients and where the generator is.
		other := fleet.Run(s.scope, which+" publisher", path, env, which)
		s.publish, s.publishHTTP = postPlain(other.Await(`^ready (\S+)`)[1]), postPlain(found[1])
		return nil
	}
}

func startSocketIO(e *environment, s *system) error {
	script := filepath.Join(e.root, "test/load/peers/socketio/server.js")
	start := func(run func(env []string) (*fleet.Process, []string)) (*fleet.Process, string, error) {
		p, found := run([]string{"PORT=127.0.0.1:0", "REDIS=" + s.redis.Addr(), "NODE_ENV=production"})
		return p, found[1], nil
	}
	p, addr, err := start(func(env []string) (*fleet.Process, []string) { return s.run(`^ready (\S+)`, "node", env, script) })
	if err != nil {
		return err
	}
	if err := s.joined(p, addr); err != nil || len(s.nodes) > 1 {
		return err
	}
	_, other, err := start(func(env []string) (*fleet.Process, []string) {
		p := fleet.Run(s.scope, "socketio publisher", "node", env, script)
		return p, p.Await(`^ready (\S+)`)
	})
	s.publish, s.publishHTTP = postPlain(other), postPlain(addr)
	return err
}

func postPlain(addr string) func(context.Context, string, []byte) error {
	return post(func(channel string, data []byte) (*http.Request, error) {
		return http.NewRequest(http.MethodPost, "http://"+addr+"/publish?channel="+url.QueryEscape(channel), bytes.NewReader(data))
	})
}

// post sends requests over connections that are kept.
func post(request func(channel string, data []byte) (*http.Request, error)) func(context.Context, string, []byte) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: publishers}}
	return func(ctx context.Context, channel string, data []byte) error {
		r, err := request(channel, data)
		if err != nil {
			return err
		}
		res, err := client.Do(r.WithContext(ctx))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var body bytes.Buffer
		if _, err := body.ReadFrom(res.Body); err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK || strings.Contains(body.String(), `"error"`) {
			return fmt.Errorf("publish: %s: %s", res.Status, body.String())
		}
		return nil
	}
}
