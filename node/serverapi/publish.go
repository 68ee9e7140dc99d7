package serverapi

import (
	"bytes"
	"context"
	"encoding/json"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

const (
	// BroadcastChannels is the most channels that one broadcast may name. Error 106 past it.
	BroadcastChannels = 1000
	// publishesAtOnce is how many publications of one broadcast are under way together.
	publishesAtOnce = 32
)

// publication is what publish and broadcast have in common.
type publication struct {
	Data           json.RawMessage   `json:"data"`
	B64Data        string            `json:"b64data"`
	Tags           map[string]string `json:"tags"`
	IdempotencyKey string            `json:"idempotency_key"`
	SkipHistory    bool              `json:"skip_history"`
	Delta          bool              `json:"delta"`
	Version        uint64            `json:"version"`
	VersionEpoch   string            `json:"version_epoch"`
	// Key is what the version belongs to, where a channel carries states of several things. Ours.
	Key string `json:"key"`
}

type publishRequest struct {
	Channel string `json:"channel"`
	publication
}

type broadcastRequest struct {
	Channels []string `json:"channels"`
	publication
}

type publishResult struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
	// Ours: nothing was published now, because it was before, or because the version is not above the last one.
	Duplicate  bool `json:"duplicate,omitempty"`
	Superseded bool `json:"superseded,omitempty"`
}

type broadcastResult struct {
	Responses []reply `json:"responses"`
}

func publish(ctx context.Context, a *API, req publishRequest) (any, error) {
	p, err := req.publication.check()
	if err != nil {
		return nil, err
	}
	return a.publish(ctx, req.Channel, p, req.SkipHistory)
}

func broadcast(ctx context.Context, a *API, req broadcastRequest) (any, error) {
	switch n := len(req.Channels); {
	case n == 0:
		return nil, because(errBadRequest, "channels: none")
	case n > BroadcastChannels:
		return nil, because(errLimitExceeded, "channels: %d, at most %d", n, BroadcastChannels)
	}
	p, err := req.publication.check()
	if err != nil {
		return nil, err
	}
	res := broadcastResult{Responses: make([]reply, len(req.Channels))}
	var g errgroup.Group
	g.SetLimit(publishesAtOnce)
	for i, name := range req.Channels {
		g.Go(func() error {
			result, err := a.publish(ctx, name, p, req.SkipHistory)
			if err != nil {
				a.note(err)
				res.Responses[i].Error = errorOf(err)
			} else {
				res.Responses[i].Result = result
			}
			return nil
		})
	}
	return res, g.Wait()
}

// check makes what goes to the bus, but for the channel.
func (p publication) check() (bus.Publication, error) {
	out := bus.Publication{ID: p.IdempotencyKey, Tags: p.Tags}
	data, err := unpacked("data", p.Data, p.B64Data)
	switch {
	case err != nil:
		return out, err
	case len(data) == 0:
		return out, because(errBadRequest, "data: required, and not null")
	case p.Delta:
		return out, because(errNotAvailable, "delta: publications are sent whole")
	case len(p.IdempotencyKey) > limit.PublicationIDBytes:
		return out, because(errLimitExceeded, "idempotency_key: %d bytes, at most %d", len(p.IdempotencyKey), limit.PublicationIDBytes)
	case p.Version == 0 && (p.VersionEpoch != "" || p.Key != ""):
		return out, because(errBadRequest, "version: required with version_epoch and key")
	}
	tags := 0
	for k, v := range p.Tags {
		tags += len(k) + len(v)
	}
	if tags > limit.TagsBytes {
		return out, because(errLimitExceeded, "tags: %d bytes, at most %d", tags, limit.TagsBytes)
	}
	if p.Version > 0 {
		out.Version, out.Key = p.Version, p.versionKey()
		if len(out.Key) > limit.PublicationIDBytes {
			return out, because(errLimitExceeded, "version_epoch and key: %d bytes, at most %d", len(p.VersionEpoch)+len(p.Key), limit.PublicationIDBytes-versionKeyExtra)
		}
	}
	if p.B64Data != "" {
		out.SetData(data)
		return out, nil
	}
	return out, compact(&out, data)
}

// compact takes JSON as data, on one line.
func compact(p *bus.Publication, data []byte) error {
	var b bytes.Buffer
	if !utf8.Valid(data) || json.Compact(&b, data) != nil {
		return because(errBadRequest, "data: not JSON")
	}
	p.Data, p.Binary = b.Bytes(), false
	return nil
}

// versionKeyExtra is how much longer than version_epoch and key the bus's key may be.
const versionKeyExtra = 2

// versionKey is the bus's key of the version: the given key alone is what publishers in Go call so; without one the version is the channel's.
func (p publication) versionKey() string {
	key := p.Key
	if key == "" {
		key = "*"
	}
	if p.VersionEpoch != "" {
		key += "\n" + p.VersionEpoch
	}
	return key
}

func (a *API) publish(ctx context.Context, name string, p bus.Publication, skipHistory bool) (any, error) {
	ns, err := a.sockets.Namespace(name)
	switch {
	case err != nil:
		return nil, about("channel", err)
	case skipHistory && ns.HistorySize > 0:
		return nil, because(errNotAvailable, "skip_history: every publication of this channel has its place in the history")
	case p.Binary && !ns.Binary && compact(&p, p.Data) != nil:
		return nil, because(errNotAvailable, "b64data: the channel takes only JSON")
	case len(p.Data) > ns.DataBytes:
		return nil, because(errLimitExceeded, "data: %d bytes, at most %d", len(p.Data), ns.DataBytes)
	}
	p.Channel = name
	r, err := a.sockets.Publish(ctx, p)
	if err != nil {
		return nil, err
	}
	return publishResult{Offset: r.Position.Offset, Epoch: r.Position.Epoch, Duplicate: r.Duplicate, Superseded: r.Superseded}, nil
}
