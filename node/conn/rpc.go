package conn

import (
	"context"
	"encoding/json"
	"time"

	"github.com/centrifugal/protocol"
)

// rpcMethod answers a named call: any value that json.Marshal takes, or an error as commands have it.
type rpcMethod func(ctx context.Context, c *client, data []byte) (any, error)

// methods is the registry of what clients may call.
func (s *Service) methods() map[string]rpcMethod {
	all := map[string]rpcMethod{
		"publish":   rpcPublish,
		"node.info": rpcNodeInfo,
		"time":      rpcTime,
		"ack":       rpcAck,
	}
	for name, m := range s.operators {
		all[name] = operator(m)
	}
	return all
}

func (c *client) call(ctx context.Context, req *protocol.RPCRequest) (*protocol.Reply, string, error) {
	m, ok := c.s.rpc[req.Method]
	if !ok {
		return nil, "rpc", errMethodNotFound // its name is not made a label: it is the client's
	}
	method := "rpc " + req.Method
	answer, err := m(ctx, c, req.Data)
	if err != nil {
		return nil, method, err
	}
	data, err := json.Marshal(answer)
	if err != nil {
		return nil, method, err
	}
	return &protocol.Reply{Rpc: &protocol.RPCResult{Data: data}}, method, nil
}

// rpcPublish is publish with an id, so that a client that lost the answer can repeat it, and with the position in the answer.
func rpcPublish(ctx context.Context, c *client, data []byte) (any, error) {
	var req struct {
		Channel string          `json:"channel"`
		Data    json.RawMessage `json:"data"`
		ID      string          `json:"id"`
	}
	if err := json.Unmarshal(data, &req); err != nil || len(req.Data) == 0 {
		return nil, errBadRequest
	}
	res, id, err := c.relay(ctx, req.Channel, req.Data, req.ID)
	if err != nil {
		return nil, err
	}
	return struct {
		ID        string `json:"id"`
		Epoch     string `json:"epoch"`
		Offset    uint64 `json:"offset"`
		Duplicate bool   `json:"duplicate,omitempty"`
	}{id, res.Position.Epoch, res.Position.Offset, res.Duplicate}, nil
}

// rpcNodeInfo names the node that holds the caller's socket.
func rpcNodeInfo(_ context.Context, c *client, _ []byte) (any, error) {
	info := c.s.nodeInfo()
	return struct {
		Node        string `json:"node"`
		Zone        string `json:"zone,omitempty"`
		Version     string `json:"version"`
		State       string `json:"state"`
		Connections int    `json:"connections"`
		Client      string `json:"client"`
		Since       int64  `json:"since"` // of the connection, Unix milliseconds
	}{c.s.o.NodeID, info.Zone, info.Version, info.State, info.Connections, c.id, c.since.UnixMilli()}, nil
}

// rpcAck confirms that everything up to an offset has been dealt with; it answers how many publications are not confirmed. A confirmation that
// is older than the last one changes nothing.
func rpcAck(_ context.Context, c *client, data []byte) (any, error) {
	var req struct {
		Channel string `json:"channel"`
		Epoch   string `json:"epoch"`
		Offset  uint64 `json:"offset"`
	}
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, errBadRequest
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sub := c.subs[req.Channel]
	switch {
	case sub == nil || sub.hub == nil:
		return nil, errPermission
	case !sub.ns.Ack:
		return nil, errNotAvailable
	case req.Epoch != sub.epoch || req.Offset > sub.hub.Delivered():
		return nil, errBadRequest // that has not been sent
	}
	sub.acked = max(sub.acked, req.Offset)
	return map[string]uint64{"unacked": sub.unackedLocked()}, nil
}

func (sub *subscription) unackedLocked() uint64 {
	if !sub.ns.Ack || sub.hub == nil {
		return 0
	}
	sent := sub.hub.Delivered()
	return sent - min(sub.acked, sent)
}

// rpcTime answers the node's clock, in Unix milliseconds.
func rpcTime(context.Context, *client, []byte) (any, error) {
	return map[string]int64{"time": time.Now().UnixMilli()}, nil
}
