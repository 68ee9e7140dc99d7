package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"tideline/node/aws"
	"tideline/node/stream"
	livetail "tideline/node/stream/aws"
	"tideline/node/stream/docker"
)

type method = func(ctx context.Context, data []byte) (any, error)

// openSources makes what the settings ask for: the sources of streams by namespace, and the rpc methods that belong to them. It connects to nothing.
func openSources(c Config, services *aws.Services, log *slog.Logger) (map[string]stream.Source, map[string]method, error) {
	sources, methods := map[string]stream.Source{}, map[string]method{}
	if c.DockerHost != "" {
		engine, err := docker.Open(c.DockerHost, c.DockerCerts, log)
		if err != nil {
			return nil, nil, fmt.Errorf("DOCKER_HOST: %w", err)
		}
		sources[docker.Namespace] = engine
		methods["docker.containers"] = func(ctx context.Context, _ []byte) (any, error) {
			list, total, err := engine.Containers(ctx)
			return struct {
				Containers []docker.Container `json:"containers"`
				Total      int                `json:"total"`
			}{list, total}, err
		}
	}
	if c.LogGroups {
		sources[livetail.Namespace] = services.LogGroups(log)
	}
	// Subscribing to a channel that nothing feeds is silence: who wants to watch can ask first.
	methods["streams"] = func(context.Context, []byte) (any, error) {
		return map[string][]string{"namespaces": append([]string{}, slices.Sorted(maps.Keys(sources))...)}, nil // [] when empty, not null
	}
	return sources, methods, nil
}
