package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/node/aws"
	"tideline/node/conn"
	"tideline/node/page"
	"tideline/node/serverapi"
	"tideline/node/stream"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/token"
	"tideline/shared/trace/otlp"
)

// Open makes a node of its settings, on listeners that the caller has opened and the node will close. It connects to nothing:
// Redis may be away. The error, if any, leaves the listeners to the caller.
func Open(ctx context.Context, c Config, public, private net.Listener, log *slog.Logger) (*Node, error) {
	var services *aws.Services
	if c.KeysTable != "" || c.RedisIAM.User != "" || c.LogGroups || c.LifecycleHook != "" || c.Namespace != "" {
		var err error
		if services, err = aws.Open(ctx); err != nil {
			return nil, err
		}
	}
	here := newInstance(ctx, &c, services, log)
	verifier, err := openVerifier(ctx, c, services, log)
	if err != nil {
		return nil, err
	}
	pages, err := page.New(c.Scheme, c.ConnectOrigins)
	if err != nil {
		return nil, err
	}
	redis := bus.Options{URL: c.RedisURL, Stage: c.Stage, Log: log}
	if c.RedisIAM.User != "" {
		redis.Credentials = services.RedisCredentials(c.RedisIAM)
	}
	b, err := bus.Open(ctx, redis)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	tracing, err := otlp.Open(ctx, c.Tracing, "tideline-node", c.NodeID, Version(), log)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	release := func() error { tracing.Close(); return b.Close() }
	table := c.Channels
	if table == nil {
		table = channel.Shipped()
	}
	sources, methods, err := openSources(c, services, log)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	registry := prometheus.NewRegistry()
	orders := make(chan string, 1)
	order := func(reason string) {
		select {
		case orders <- reason:
		default: // one is enough
		}
	}
	canaryToken := rand.Text()
	metrics := prometheus.WrapRegistererWith(prometheus.Labels{"instance": c.NodeID}, registry)
	sockets, err := conn.New(conn.Options{
		NodeID: c.NodeID, Version: Version(), Zone: c.Zone,
		Bus: b, Table: table, Verifier: verifier,
		AllowedOrigins: c.AllowedOrigins, TrustedHops: c.TrustedHops,
		ConnectionsPerUser: c.ConnectionsPerUser, ConnectionsPerIP: c.ConnectionsPerIP, ShedAge: c.ShedAge, Compression: c.Compression,
		MessageBytes: c.MessageBytes, QueueBytes: c.QueueBytes, ChannelsPerClient: c.ChannelsPerClient, CommandsPerSecond: c.CommandsPerSecond,
		SubscribesPerSecond: c.SubscribesPerSecond, Unauthenticated: c.Unauthenticated, HandshakeTimeout: c.HandshakeTimeout,
		Streams: stream.New(stream.Options{Bus: b, Table: table, Sources: sources,
			Metrics: prometheus.WrapRegistererWith(prometheus.Labels{"instance": c.NodeID}, registry), Log: log}), Methods: methods,
		DrainOrdered: func() { order("an operator") }, CanaryToken: canaryToken,
		Metrics: metrics, Log: log, Tracing: tracing.Provider,
	})
	if err != nil {
		return nil, errors.Join(err, release())
	}
	var n *Node
	draining := func() bool { return n.State() == Draining } // nothing of it is called before Run
	api, err := openAPI(c, sockets, b, log)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	n, err = New(Options{NodeID: c.NodeID, Sockets: sockets, Page: pages, API: api, Registry: registry, Public: public, Private: private,
		DrainGrace: c.DrainGrace, DrainWindow: c.DrainWindow, Ordered: orders, Watch: here.watch(order, registry, draining), Drained: here.drained(),
		Canary: newCanary(c, public, b, table, canaryToken, metrics, log), Log: log, Tracing: tracing.Provider, Release: release})
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return n, nil
}

// openAPI makes the server API, or nil without keys.
func openAPI(c Config, sockets *conn.Service, b *bus.Bus, log *slog.Logger) (*serverapi.API, error) {
	var keys *serverapi.Keys
	var err error
	switch {
	case c.APIKeysFile != "":
		keys, err = serverapi.OpenKeys(c.APIKeysFile, func(err error) { log.Warn("keys of the server API not read again", "error", err) })
	case c.APIKeys != "":
		keys, err = serverapi.ParseKeys(c.APIKeys)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("API_KEYS: %w", err)
	}
	return serverapi.New(serverapi.Options{Sockets: sockets, Bus: b, Keys: keys, Log: log}), nil
}

// keysWait is how long a starting node waits for the keys; without them it starts all the same, and reads them when a token comes.
const keysWait = 3 * time.Second

// openVerifier takes tokens by secret, by key ring, and of foreign issuers, as far as they are set.
func openVerifier(ctx context.Context, c Config, services *aws.Services, log *slog.Logger) (token.Verifier, error) {
	complain := func(err error) { log.Warn("token keys not read", "error", err) }
	var either token.Either
	if c.TokenSecrets != "" {
		secrets, err := token.ParseSecrets(c.TokenSecrets, nil, complain)
		if err != nil {
			return nil, fmt.Errorf("TOKEN_SECRETS: %w", err)
		}
		either.Secrets = secrets
	}
	if c.KeysTable != "" {
		keys := token.NewKeys(services.Keys(c.KeysTable), nil, complain)
		ctx, cancel := context.WithTimeout(ctx, keysWait)
		defer cancel()
		if err := keys.Load(ctx); err != nil {
			complain(err)
		}
		either.Ring = keys.Access()
		if len(c.Issuers) > 0 {
			either.Issuers = keys.Issuers(c.Issuers)
		}
	}
	return either, nil
}
