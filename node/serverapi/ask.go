package serverapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"tideline/node/conn"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
)

type channelRequest struct {
	Channel string `json:"channel"`
}

type clientInfo struct {
	Client   string          `json:"client"`
	User     string          `json:"user"`
	ConnInfo json.RawMessage `json:"conn_info,omitempty"`
	ChanInfo json.RawMessage `json:"chan_info,omitempty"`
}

func infoOf(i bus.ClientInfo) clientInfo {
	return clientInfo{Client: i.Client, User: i.User, ConnInfo: i.ConnInfo, ChanInfo: i.ChanInfo}
}

// present finds a channel whose members are kept.
func (a *API) present(name string) error {
	ns, err := a.sockets.Namespace(name)
	switch {
	case err != nil:
		return about("channel", err)
	case !ns.Presence:
		return because(errNotAvailable, "the channel keeps no presence")
	}
	return nil
}

func presence(ctx context.Context, a *API, req channelRequest) (any, error) {
	if err := a.present(req.Channel); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	members, err := a.bus.Presence(ctx, req.Channel)
	if err != nil {
		return nil, err
	}
	res := struct {
		Presence map[string]clientInfo `json:"presence"`
	}{make(map[string]clientInfo, len(members))}
	for id, m := range members {
		res.Presence[id] = infoOf(m)
	}
	return res, nil
}

func presenceStats(ctx context.Context, a *API, req channelRequest) (any, error) {
	if err := a.present(req.Channel); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	stats, err := a.bus.PresenceStats(ctx, req.Channel)
	if err != nil {
		return nil, err
	}
	return struct {
		Clients int `json:"num_clients"`
		Users   int `json:"num_users"`
	}{stats.Clients, stats.Users}, nil
}

type historyRequest struct {
	Channel string    `json:"channel"`
	Limit   int       `json:"limit"`
	Since   *position `json:"since"`
	Reverse bool      `json:"reverse"`
}

type historyPublication struct {
	Data    json.RawMessage   `json:"data,omitempty"`
	B64Data string            `json:"b64data,omitempty"` // ours: data that is no JSON
	Offset  uint64            `json:"offset"`
	Info    *clientInfo       `json:"info,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"`
}

type historyResult struct {
	Publications []historyPublication `json:"publications"`
	Epoch        string               `json:"epoch"`
	Offset       uint64               `json:"offset"`
}

// kept finds a channel whose history is kept.
func (a *API) kept(name string) (channel.Namespace, error) {
	ns, err := a.sockets.Namespace(name)
	switch {
	case err != nil:
		return ns, about("channel", err)
	case ns.HistorySize == 0:
		return ns, because(errNotAvailable, "the channel keeps no history")
	}
	return ns, nil
}

func history(ctx context.Context, a *API, req historyRequest) (any, error) {
	if _, err := a.kept(req.Channel); err != nil {
		return nil, err
	}
	if req.Limit < -1 {
		return nil, because(errBadRequest, "limit: a number, or -1 for a whole page")
	}
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	page := bus.Page{Limit: req.Limit, Reverse: req.Reverse}
	if req.Since != nil && *req.Since != (position{}) {
		page.Since = &bus.Position{Epoch: req.Since.Epoch, Offset: req.Since.Offset}
		if page.Since.Epoch == "" { // the offset alone is known: of whatever epoch there is
			tops, errs := a.bus.Positions(ctx, []string{req.Channel})
			if errs[0] != nil {
				return nil, errs[0]
			}
			page.Since.Epoch = tops[0].Epoch
		}
	}
	pubs, top, err := a.bus.History(ctx, req.Channel, page)
	if errors.Is(err, bus.ErrUnrecoverable) {
		return nil, because(errUnrecoverable, "since: the channel has another epoch")
	}
	if err != nil {
		return nil, err
	}
	res := historyResult{Epoch: top.Epoch, Offset: top.Offset, Publications: make([]historyPublication, len(pubs))}
	for i := range pubs {
		res.Publications[i] = written(&pubs[i])
	}
	return res, nil
}

func written(p *bus.Publication) historyPublication {
	w := historyPublication{Offset: p.Offset, Tags: p.Tags}
	if p.Binary || !json.Valid(p.Data) { // what other publishers put in is theirs to answer for
		w.B64Data = base64.StdEncoding.EncodeToString(p.Data)
	} else {
		w.Data = p.Data
	}
	if p.Info != nil {
		i := infoOf(*p.Info)
		w.Info = &i
	}
	return w
}

func historyRemove(ctx context.Context, a *API, req channelRequest) (any, error) {
	if _, err := a.kept(req.Channel); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	if _, err := a.bus.RemoveHistory(ctx, req.Channel); err != nil {
		return nil, err
	}
	return nothing{}, nil
}

type channelsRequest struct {
	Pattern string `json:"pattern"`
}

func channels(ctx context.Context, a *API, req channelsRequest) (any, error) {
	if err := conn.CheckPattern(req.Pattern); err != nil {
		return nil, because(errBadRequest, "pattern: %v", err)
	}
	l, err := a.sockets.Channels(ctx, req.Pattern)
	if err != nil {
		return nil, err
	}
	if l.Refused[errLimitExceeded.Code] > 0 {
		return nil, because(errLimitExceeded, "pattern: more channels match than a node lists")
	}
	if err := incomplete(l); err != nil {
		return nil, err
	}
	type count struct {
		Clients int `json:"num_clients"`
	}
	res := struct {
		Channels map[string]count `json:"channels"`
	}{make(map[string]count, len(l.Channels))}
	for name, n := range l.Channels {
		res.Channels[name] = count{n}
	}
	return res, nil
}

type connectionsRequest struct {
	whom
	Channel    string `json:"channel"`
	Node       string `json:"node"`
	Expression string `json:"expression"`
}

type connectionState struct {
	Channels map[string]struct{} `json:"channels"`
}

type connection struct {
	User      string          `json:"user"`
	Transport string          `json:"transport"`
	Protocol  string          `json:"protocol"`
	Connected int64           `json:"connected_at_ms"`
	State     connectionState `json:"state"`
	// Ours.
	Node    string            `json:"node"`
	Session string            `json:"session,omitempty"`
	Unacked map[string]uint64 `json:"unacked,omitempty"`
}

func connections(ctx context.Context, a *API, req connectionsRequest) (any, error) {
	if req.Expression != "" {
		return nil, because(errNotAvailable, "expression: select by user, client, session, channel and node")
	}
	l, err := a.sockets.Connections(ctx, conn.Query{User: req.User, Client: req.Client, Session: req.Session, Channel: req.Channel, Node: req.Node})
	if err != nil {
		return nil, tooLong(err)
	}
	if err := incomplete(l); err != nil {
		return nil, err
	}
	res := struct {
		Connections map[string]connection `json:"connections"`
		Total       int                   `json:"total"` // ours: also of those that are not listed
	}{make(map[string]connection, len(l.Connections)), l.Total}
	for _, c := range l.Connections {
		state := connectionState{make(map[string]struct{}, len(c.Channels))}
		for _, name := range c.Channels {
			state.Channels[name] = struct{}{}
		}
		res.Connections[c.Client] = connection{User: c.User, Transport: c.Transport, Protocol: c.Protocol, Connected: c.Since, State: state,
			Node: c.Node, Session: c.Session, Unacked: c.Unacked}
	}
	return res, nil
}

type nodeEntry struct {
	UID           string `json:"uid"`
	Name          string `json:"name"`
	Version       string `json:"version"`
	Clients       int    `json:"num_clients"`
	Users         int    `json:"num_users"`
	Subscriptions int    `json:"num_subs"`
	Channels      int    `json:"num_channels"`
	Uptime        int64  `json:"uptime"` // seconds
	// Ours.
	Zone  string `json:"zone,omitempty"`
	State string `json:"state"`
}

func info(ctx context.Context, a *API, _ nothing) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	all, err := a.bus.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	res := struct {
		Nodes []nodeEntry `json:"nodes"`
	}{make([]nodeEntry, len(all))}
	for i, n := range all {
		res.Nodes[i] = nodeEntry{UID: n.Boot, Name: n.ID, Version: n.Version, Clients: n.Connections, Users: n.Users, Subscriptions: n.Subscriptions,
			Channels: n.Channels, Uptime: int64(max(0, time.Since(n.Started)) / time.Second), Zone: n.Zone, State: n.State}
	}
	return res, nil
}

type rpcRequest struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

func rpc(ctx context.Context, a *API, req rpcRequest) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	params := req.Params
	if !given(params) {
		params = nil
	}
	data, err := a.sockets.Call(ctx, req.Method, params)
	if err != nil {
		if errorOf(err).Code == errNotFound.Code {
			return nil, because(errNotFound, "method: no such call")
		}
		return nil, about("params", err)
	}
	return struct {
		Data any `json:"data"`
	}{data}, nil
}
