package server

import (
	"context"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/node/conn"
	"tideline/node/conn/canary"
	"tideline/shared/bus"
	"tideline/shared/channel"
)

// newCanary answers what the node runs while it is ready: nothing where the namespaces have no room for a canary.
func newCanary(c Config, public net.Listener, b *bus.Bus, table *channel.Table, token string, metrics prometheus.Registerer, log *slog.Logger) func(context.Context) {
	ns, err := table.Lookup(channel.Canary)
	if err != nil {
		log.Warn("no canary: CHANNELS_FILE has no namespace for it", "channel", channel.Canary)
		return nil
	}
	return canary.New(canary.Options{Bus: b, History: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL}, NodeID: c.NodeID,
		URL: "ws://" + public.Addr().String() + conn.Path, Token: token, Metrics: metrics, Log: log}).Run
}
