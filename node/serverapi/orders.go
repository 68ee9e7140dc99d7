package serverapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tideline/node/conn"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
)

const (
	// InfoBytes is the most that a subscription's info may take. Error 106 past it, or when it and what the token says of a client are too much
	// for a presence entry together.
	InfoBytes = 2 << 10
	// WhitelistClients is the most clients that a disconnect may except. Error 106 past it.
	WhitelistClients = 100
)

// whom says which connections a command is for: a user's, and fewer of them, or by client or session alone.
type whom struct {
	User    string `json:"user"`
	Client  string `json:"client"`
	Session string `json:"session"`
}

func (w whom) query() (conn.Query, error) {
	if w.User == "" && w.Client == "" && w.Session == "" {
		return conn.Query{}, because(errBadRequest, "user: required, or client, or session")
	}
	return conn.Query{User: w.User, Client: w.Client, Session: w.Session}, nil
}

// position in a channel's history.
type position struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
}

// option is a setting of the subscription that may be named as long as it is what the namespace has.
type option struct {
	Value bool `json:"value"`
}

type subscribeRequest struct {
	whom
	Channel      string          `json:"channel"`
	Info         json.RawMessage `json:"info"`
	B64Info      string          `json:"b64info"`
	Data         json.RawMessage `json:"data"`
	B64Data      string          `json:"b64data"`
	RecoverSince *position       `json:"recover_since"`
	ExpireAt     int64           `json:"expire_at"`
	Override     *struct {
		Presence           *option `json:"presence"`
		JoinLeave          *option `json:"join_leave"`
		ForcePushJoinLeave *option `json:"force_push_join_leave"`
		ForcePositioning   *option `json:"force_positioning"`
		ForceRecovery      *option `json:"force_recovery"`
	} `json:"override"`
	// What older libraries call the same.
	Presence  bool `json:"presence"`
	JoinLeave bool `json:"join_leave"`
	Position  bool `json:"position"`
	Recover   bool `json:"recover"`
}

func subscribe(ctx context.Context, a *API, req subscribeRequest) (any, error) {
	q, err := req.query()
	if err != nil {
		return nil, err
	}
	ns, err := a.sockets.Namespace(req.Channel)
	if err != nil {
		return nil, about("channel", err)
	}
	if err := req.options(ns); err != nil {
		return nil, err
	}
	o := conn.Order{Query: q, Until: req.ExpireAt}
	o.Channel = req.Channel
	if o.Data, err = unpackedJSON("data", req.Data, req.B64Data); err != nil {
		return nil, err
	}
	if o.Info, err = unpackedJSON("info", req.Info, req.B64Info); err != nil {
		return nil, err
	}
	switch {
	case len(o.Info) > InfoBytes:
		return nil, because(errLimitExceeded, "info: %d bytes, at most %d", len(o.Info), InfoBytes)
	case o.Info != nil && !ns.Presence:
		return nil, because(errNotAvailable, "info: the channel keeps no presence")
	case req.RecoverSince != nil && ns.HistorySize == 0:
		return nil, because(errNotAvailable, "recover_since: the channel keeps no history")
	case req.RecoverSince != nil:
		o.Since = &bus.Position{Epoch: req.RecoverSince.Epoch, Offset: req.RecoverSince.Offset}
	}
	if err := later("expire_at", req.ExpireAt); err != nil {
		return nil, err
	}
	l, err := a.sockets.Subscribe(ctx, o)
	return done(req.Client != "", l, err)
}

// options refuses what the namespace has otherwise: its rules are the same for everybody.
func (r subscribeRequest) options(ns channel.Namespace) error {
	recovers := ns.HistorySize > 0 && ns.Recover
	named := map[string]*option{}
	has := map[string]bool{"presence": ns.Presence, "join_leave": ns.JoinLeave, "position": true, "recover": recovers, "override.presence": ns.Presence,
		"override.join_leave": ns.JoinLeave, "override.force_push_join_leave": ns.JoinLeave, "override.force_positioning": true,
		"override.force_recovery": recovers}
	for name, on := range map[string]bool{"presence": r.Presence, "join_leave": r.JoinLeave, "position": r.Position, "recover": r.Recover} {
		if on {
			named[name] = &option{true}
		}
	}
	if o := r.Override; o != nil {
		named["override.presence"], named["override.join_leave"], named["override.force_push_join_leave"] = o.Presence, o.JoinLeave, o.ForcePushJoinLeave
		named["override.force_positioning"], named["override.force_recovery"] = o.ForcePositioning, o.ForceRecovery
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if o := named[name]; o != nil && o.Value != has[name] {
			return because(errNotAvailable, "%s: the channel's namespace decides, and it says %v", name, has[name])
		}
	}
	return nil
}

// later refuses an end that is not ahead, or that a client could not be told.
func later(field string, at int64) error {
	if at == 0 {
		return nil
	}
	if ahead := time.Until(time.Unix(at, 0)); at < 0 || ahead <= 0 || ahead > conn.UntilMost {
		return because(errBadRequest, "%s: a time in Unix seconds, ahead of now by less than %d days", field, int(conn.UntilMost/(24*time.Hour)))
	}
	return nil
}

// farewell is what clients are told: a code, and a reason.
type farewell struct {
	Code      uint32 `json:"code"`
	Reason    string `json:"reason"`
	Reconnect *bool  `json:"reconnect"` // of older libraries; what it says follows from the code
}

type unsubscribeRequest struct {
	whom
	Channel string `json:"channel"`
	// Unsubscribe is the code and the reason that clients see. Ours.
	Unsubscribe *farewell `json:"unsubscribe"`
}

func unsubscribe(ctx context.Context, a *API, req unsubscribeRequest) (any, error) {
	q, err := req.query()
	if err != nil {
		return nil, err
	}
	if _, err := a.sockets.Namespace(req.Channel); err != nil {
		return nil, about("channel", err)
	}
	o := conn.Order{Query: q}
	o.Channel = req.Channel
	if f := req.Unsubscribe; f != nil {
		o.Code, o.Reason = f.Code, f.Reason
		if !o.Unsubscribes() || f.Reconnect != nil {
			return nil, because(errBadRequest, "unsubscribe: a code from 2000 to 2999 and a reason, which is 1 to 123 bytes of text and no JSON")
		}
	}
	l, err := a.sockets.Unsubscribe(ctx, o)
	return done(req.Client != "", l, err)
}

type disconnectRequest struct {
	whom
	Whitelist  []string  `json:"whitelist"`
	Disconnect *farewell `json:"disconnect"`
	// ClientWhitelist is what older libraries call the whitelist.
	ClientWhitelist []string
}

func disconnect(ctx context.Context, a *API, req disconnectRequest) (any, error) {
	q, err := req.query()
	if err != nil {
		return nil, err
	}
	o := conn.Order{Query: q, Except: append(req.Whitelist, req.ClientWhitelist...)}
	if n := len(o.Except); n > WhitelistClients {
		return nil, because(errLimitExceeded, "whitelist: %d clients, at most %d", n, WhitelistClients)
	}
	if slices.ContainsFunc(o.Except, func(id string) bool { return len(id) > bus.ClientBytes }) {
		return nil, because(errBadRequest, "whitelist: an id has more than %d bytes", bus.ClientBytes)
	}
	if f := req.Disconnect; f != nil {
		o.Code, o.Reason = f.Code, f.Reason
		switch {
		case !o.Disconnects():
			return nil, because(errBadRequest, "disconnect: a code from 3000 to 4999 and a reason, which is 1 to 123 bytes of text and no JSON")
		case f.Reconnect != nil && *f.Reconnect != (f.Code%1000 < 500):
			return nil, because(errBadRequest, "disconnect.reconnect: clients go by the code, and %d says %v", f.Code, !*f.Reconnect)
		}
	}
	l, err := a.sockets.Disconnect(ctx, o)
	return done(req.Client != "", l, err)
}

type refreshRequest struct {
	whom
	Expired  bool  `json:"expired"`
	ExpireAt int64 `json:"expire_at"`
}

func refresh(ctx context.Context, a *API, req refreshRequest) (any, error) {
	q, err := req.query()
	if err != nil {
		return nil, err
	}
	if req.Expired && req.ExpireAt != 0 {
		return nil, because(errBadRequest, "expired and expire_at exclude each other")
	}
	if err := later("expire_at", req.ExpireAt); err != nil {
		return nil, err
	}
	l, err := a.sockets.Refresh(ctx, conn.Order{Query: q, Expired: req.Expired, Until: req.ExpireAt})
	return done(req.Client != "", l, err)
}

type sendRequest struct {
	whom
	Data    json.RawMessage `json:"data"`
	B64Data string          `json:"b64data"`
}

func send(ctx context.Context, a *API, req sendRequest) (any, error) {
	q, err := req.query()
	if err != nil {
		return nil, err
	}
	o := conn.Order{Query: q}
	if o.Data, err = unpackedJSON("data", req.Data, req.B64Data); err != nil {
		return nil, err
	}
	if o.Data == nil {
		return nil, because(errBadRequest, "data: required, and not null")
	}
	l, err := a.sockets.Send(ctx, o)
	if err == nil && req.Client != "" && l.Total == 0 && len(l.Missing) == 0 {
		return nil, because(errNotFound, "client: no such connection")
	}
	return done(req.Client != "", l, err)
}

// doneResult says at how many connections an order was carried out. Ours.
type doneResult struct {
	Total int `json:"total"`
}

// done answers an order. It was carried out where it could be, also when that is an error: an order may be repeated. one says that it was for one
// connection.
func done(one bool, l conn.Listing, err error) (any, error) {
	if err != nil {
		return nil, tooLong(err)
	}
	if one && l.Total == 1 {
		l.Missing = nil // there is no second one to be found
	}
	if err := incomplete(l); err != nil {
		return nil, err
	}
	return doneResult{l.Total}, nil
}

// tooLong says which of the limits an order met.
func tooLong(err error) error {
	if errorOf(err).Code == errLimitExceeded.Code {
		return because(errLimitExceeded, "the order is longer than %d bytes", limit.OrderBytes)
	}
	return err
}

// incomplete says what kept an answer from being whole: clients that refused, of the codes the most frequent, or nodes that did not answer.
func incomplete(l conn.Listing) error {
	if len(l.Refused) > 0 {
		most := slices.MaxFunc(slices.Sorted(maps.Keys(l.Refused)), func(a, b uint32) int { return l.Refused[a] - l.Refused[b] })
		refused := 0
		for _, n := range l.Refused {
			refused += n
		}
		return because(known(most), "at %d of %d connections", refused, refused+l.Total)
	}
	if len(l.Missing) > 0 {
		slices.Sort(l.Missing)
		return because(errInternal, "no answer from %s; done at %d connections", strings.Join(l.Missing, ", "), l.Total)
	}
	return nil
}

// known finds an error by its code.
func known(code uint32) *Error {
	for _, e := range []*Error{errUnknownChannel, errLimitExceeded, errBadRequest, errNotAvailable, errTooManyRequests, errUnrecoverable} {
		if e.Code == code {
			return e
		}
	}
	return &Error{errInternal.Code, fmt.Sprintf("%s (%d)", errInternal.Message, code)}
}
