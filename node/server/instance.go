package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/node/aws"
	"tideline/node/drain"
)

// instanceWait is how long a starting node without ZONE waits for the metadata to tell it; it starts all the same without.
const instanceWait = 3 * time.Second

// instance is what a node does because it is on an EC2 instance. Without METADATA_URL it does nothing.
type instance struct {
	metadata  *drain.Metadata // nil without METADATA_URL
	lifecycle *aws.Lifecycle  // nil without LIFECYCLE_HOOK
	services  *aws.Services
	namespace string
	log       *slog.Logger
}

// newInstance sets the settings' zone where the metadata knows it and they don't.
func newInstance(ctx context.Context, c *Config, services *aws.Services, log *slog.Logger) *instance {
	i := &instance{services: services, namespace: c.Namespace, log: log}
	if c.MetadataURL == "" {
		return i
	}
	i.metadata = drain.NewMetadata(c.MetadataURL)
	if c.LifecycleHook != "" {
		i.lifecycle = services.Lifecycle(c.LifecycleHook)
	}
	if c.Zone == "" {
		ctx, cancel := context.WithTimeout(ctx, instanceWait)
		defer cancel()
		known, err := i.metadata.Instance(ctx)
		if err != nil {
			log.Warn("instance metadata can't be read", "error", err)
		}
		if nodeIDPattern.MatchString(known.Zone) {
			c.Zone = known.Zone
		}
		log.Info("on an instance", "instance", known.ID, "zone", known.Zone, "group", known.Group)
	}
	return i
}

// watch orders the drain when the instance is about to go, and sends the figures. It is nil where there is neither to do.
func (i *instance) watch(order func(reason string), figures prometheus.Gatherer, draining func() bool) func(context.Context) {
	if i.metadata == nil {
		return nil
	}
	return func(ctx context.Context) {
		var running sync.WaitGroup
		running.Go(func() {
			if reason, err := drain.NewWatcher(i.metadata, 0, i.log).Wait(ctx); err == nil {
				order(reason)
			}
		})
		if i.namespace != "" {
			p := i.services.Publisher(aws.Figures{Namespace: i.namespace, Gatherer: figures, Group: i.group(draining), Log: i.log})
			running.Go(func() { p.Run(ctx) })
		}
		running.Wait()
	}
}

// group is the group whose mean number of connections the node counts in: none while it drains, or its leaving clients would make the group grow less.
func (i *instance) group(draining func() bool) func(context.Context) string {
	return func(ctx context.Context) string {
		if draining() {
			return ""
		}
		known, err := i.metadata.Instance(ctx)
		if known.Group == "" && err != nil {
			i.log.Warn("connections are not sent: the instance's group is not known", "error", err)
		}
		return known.Group
	}
}

// drained completes the lifecycle action.
func (i *instance) drained() func(context.Context) {
	if i.lifecycle == nil {
		return nil
	}
	return func(ctx context.Context) {
		f := drain.Finisher{Metadata: i.metadata, Log: i.log, Complete: func(ctx context.Context, at drain.Instance) error {
			return i.lifecycle.Complete(ctx, at.Group, at.ID)
		}}
		if err := f.Finish(ctx); err != nil {
			i.log.Info("lifecycle action not completed: the hook's timeout continues it", "error", err)
		}
	}
}
