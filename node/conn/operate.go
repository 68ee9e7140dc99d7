package conn

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
)

// What servers may do, by a door of their own. Their permissions are not asked: whoever is let in may do all of it. Errors are told apart by Refusal.

// Refusal is the protocol's code and message of what one of these methods, or an order at one client, failed with.
func Refusal(err error) (code uint32, message string) {
	var no refusal
	if !errors.As(err, &no) {
		no = errInternal
	}
	return no.code, no.message
}

// Namespace finds the namespace of a channel that there can be.
func (s *Service) Namespace(name string) (channel.Namespace, error) {
	ns, err := s.o.Table.Lookup(name)
	if err != nil {
		return ns, channelError(err)
	}
	return ns, bad(s.o.Streams.Check(name) != nil)
}

// Publish publishes a server's data by its channel's rules: what the channel keeps and what data it takes is its namespace's, and where clients'
// publications are stamped this one is, too, with no user. Channel and data must be set: data that is not Binary
// is one line of JSON.
func (s *Service) Publish(ctx context.Context, p bus.Publication) (bus.Result, error) {
	ns, err := s.Namespace(p.Channel)
	switch {
	case err != nil:
		return bus.Result{}, err
	case p.Binary && !ns.Binary:
		return bus.Result{}, errNotAvailable
	case len(p.Data) == 0:
		return bus.Result{}, errBadRequest
	case len(p.Data) > ns.DataBytes:
		return bus.Result{}, errLimitExceeded
	}
	p.Time = time.Now().UnixMilli()
	p.History = bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL}
	if ns.Stamped {
		p.Data, err = json.Marshal(stamped{ID: cmp.Or(p.ID, rand.Text()), Time: p.Time, Node: s.o.NodeID, Data: p.Data})
		if err != nil {
			return bus.Result{}, errBadRequest
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit.CommandBudget)
	defer cancel()
	res, err := s.o.Bus.Publish(ctx, p)
	s.meter.publication(res, err)
	switch {
	case errors.Is(err, bus.ErrTooLarge):
		return res, errLimitExceeded
	case errors.Is(err, bus.ErrInvalid):
		return res, errBadRequest
	}
	return res, err
}

// Subscribe subscribes the connections that the order names, on whichever nodes they are, to its channel.
func (s *Service) Subscribe(ctx context.Context, o Order) (Listing, error) {
	return s.survey(ctx, surveySubscribe, o)
}

// Unsubscribe ends the subscriptions of the connections that the order selects, of all if it names nobody, to its channel.
func (s *Service) Unsubscribe(ctx context.Context, o Order) (Listing, error) {
	return s.survey(ctx, surveyUnsubscribe, o)
}

// Disconnect closes the connections that the order names.
func (s *Service) Disconnect(ctx context.Context, o Order) (Listing, error) {
	return s.survey(ctx, surveyDisconnect, o)
}

// Refresh lets the connections that the order names live until its time, whatever their tokens say, or ends them as expired.
func (s *Service) Refresh(ctx context.Context, o Order) (Listing, error) {
	return s.survey(ctx, surveyRefresh, o)
}

// Send sends data, which belongs to no channel and is not kept, to the connections that the order names.
func (s *Service) Send(ctx context.Context, o Order) (Listing, error) {
	return s.survey(ctx, surveySend, o)
}

// Connections lists the fleet's connections.
func (s *Service) Connections(ctx context.Context, q Query) (Listing, error) {
	return s.survey(ctx, surveyConnections, Order{Query: q})
}

// Channels lists the channels that anybody in the fleet is subscribed to and that match a pattern (CheckPattern). With too many on one node the
// listing is not complete and says so in Refused, with limit exceeded.
func (s *Service) Channels(ctx context.Context, pattern string) (Listing, error) {
	return s.survey(ctx, surveyChannels, Order{Pattern: pattern})
}

// Call answers one of the operators' methods.
func (s *Service) Call(ctx context.Context, method string, params []byte) (any, error) {
	m, ok := s.operators[method]
	if !ok {
		return nil, errMethodNotFound
	}
	return m(ctx, s, params)
}

func bad(wrong bool) error {
	if wrong {
		return errBadRequest
	}
	return nil
}
