package conn

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/centrifugal/protocol"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/trace"
)

// stamped is what the server makes of a client's publication in a stamped namespace: the client can't forge user, time or node.
type stamped struct {
	ID   string          `json:"id"`
	User string          `json:"user"`
	Time int64           `json:"time"` // Unix milliseconds
	Node string          `json:"node"`
	Data json.RawMessage `json:"data"`
}

func (c *client) publish(ctx context.Context, req *protocol.PublishRequest) (*protocol.Reply, string, error) {
	const method = "publish"
	if req.Type != 0 || req.Key != "" || req.Removed {
		return nil, method, errNotAvailable // map publications
	}
	if _, _, err := c.relay(ctx, req.Channel, req.Data, ""); err != nil {
		return nil, method, err
	}
	return &protocol.Reply{Publish: &protocol.PublishResult{}}, method, nil
}

// relay publishes a client's data. id, when given, makes a repetition by the same user harmless.
func (c *client) relay(ctx context.Context, name string, data []byte, id string) (bus.Result, string, error) {
	ns, err := c.s.o.Table.Lookup(name)
	if err != nil {
		return bus.Result{}, "", channelError(err)
	}
	who := c.who()
	if c.canary() {
		return bus.Result{}, "", errPermission
	}
	if err := ns.MayPublish(who, name, c.subscribed(name)); err != nil {
		return bus.Result{}, "", channelError(err)
	}
	if len(data) == 0 { // a stamp around nothing would say null
		return bus.Result{}, "", errBadRequest
	}
	if len(data) > ns.DataBytes {
		return bus.Result{}, "", errLimitExceeded
	}
	if !c.mayPublishNow(ns) {
		return bus.Result{}, "", errTooManyRequests
	}
	if len(id) > limit.PublicationIDBytes {
		return bus.Result{}, "", errBadRequest
	}
	info := c.infoOn(name)
	p := bus.Publication{Channel: name, Time: time.Now().UnixMilli(), Info: &info, History: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL}}
	if id != "" {
		p.ID = clientID(who.User, id)
	} else {
		id = rand.Text()
	}
	switch {
	case ns.Stamped:
		p.Data, err = json.Marshal(stamped{ID: id, User: who.User, Time: p.Time, Node: c.s.o.NodeID, Data: data})
	case ns.Binary && formats[c.format].binary:
		p.SetData(data)
	default:
		var compact bytes.Buffer
		err = json.Compact(&compact, data)
		p.Data = compact.Bytes()
	}
	if err != nil || !p.Binary && !utf8.Valid(p.Data) { // encoding/json doesn't look at UTF-8
		return bus.Result{}, "", errBadRequest
	}
	ctx, span := trace.Enter(ctx, c.s.o.Tracing, trace.Server, "relay", ns.Name, "tideline.node", c.s.o.NodeID, "tideline.client", c.id)
	res, err := c.s.o.Bus.Publish(ctx, p)
	span.End(err)
	c.s.meter.publication(res, err)
	if err != nil {
		c.s.log.DebugContext(ctx, "publication failed", "client", c.id, "channel", name, "error", err)
	}
	switch {
	case errors.Is(err, bus.ErrTooLarge):
		return res, "", errLimitExceeded // the stamp has made it so
	case errors.Is(err, bus.ErrInvalid):
		return res, "", errBadRequest
	}
	return res, id, err
}

// mayPublishNow takes one publication from the client's budget in the namespace.
func (c *client) mayPublishNow(ns channel.Namespace) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.publishes[ns.Name]
	if b == nil {
		fresh := newBucket(ns.PublishRate, ns.PublishRate*limit.PublishesBurst)
		b = &fresh
		c.publishes[ns.Name] = b
	}
	return b.take(1, time.Now())
}

// clientID keeps one user's ids apart from another's and from the servers'.
func clientID(user, id string) string {
	sum := sha256.Sum256([]byte(user + "\x00" + id))
	return "c:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

func (m *meter) publication(res bus.Result, err error) {
	result := "published"
	switch {
	case err != nil:
		result = "error"
	case res.Duplicate:
		result = "duplicate"
	case res.Superseded:
		result = "superseded"
	}
	m.published.WithLabelValues(result).Inc()
}
