package conn

import (
	"context"
	"log/slog"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/trace"
)

// tracer is what the hub asks about publications; nil, so that it doesn't ask, where nobody would see what comes of it.
func (s *Service) tracer() func(string, *bus.Publication) func(int) {
	if s.o.Tracing == nil && !s.log.Enabled(context.Background(), slog.LevelDebug) {
		return nil
	}
	return s.traced
}

// traced opens the span of a publication that came with a trace, one for this node, from here to its subscribers' sockets.
func (s *Service) traced(name string, p *bus.Publication) func(int) {
	parent := p.Tags[trace.Tag]
	if parent == "" {
		return nil
	}
	heard, offset := time.Now(), p.Offset
	ctx, span := trace.Enter(trace.From(context.Background(), parent), s.o.Tracing, trace.Consumer, "deliver", channel.NamespaceOf(name),
		"messaging.system", "tideline", "messaging.destination.name", name, "messaging.message.id", p.ID, "tideline.node", s.o.NodeID)
	return func(n int) {
		span.SetNumber("tideline.frames", n)
		span.End(nil)
		s.log.DebugContext(ctx, "publication delivered", "channel", name, "offset", offset, "frames", n, "took", time.Since(heard))
	}
}
