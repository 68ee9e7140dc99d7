package conn

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/centrifugal/protocol"

	"tideline/shared/bus"
	"tideline/shared/channel"
)

// Unidirectional server-sent events: what an EventSource, or curl -N, hears of channels. An EventSource comes back by itself and brings the id
// that it heard last, so an id is a list of places: the positions of the recoverable channels. Publications are shared frames, and can
// only name their own channel: with one recoverable subscription each carries its id, and nothing is missed or repeated. With several, ids that
// name all come with every ping: what was published since the last of them is heard again.

// PathUniSSE takes the request to connect in cf_connect.
const PathUniSSE = "/connection/uni_sse"

const (
	// lastEventBytes is the longest id, some 60 channels' worth; a request's headers have 16 KiB in all. Past it there is none, and nothing resumes.
	lastEventBytes = 4 << 10
	// An EventSource is told to come back after a random time, so that all of a node's don't at once.
	retryLeast, retryMost = time.Second, 5 * time.Second
	// retryRefused is for goodbyes on which a client shouldn't come back: it can't be told to stay away for good.
	retryRefused = time.Hour
)

// serveUniSSE opens a stream of events.
func (s *Service) serveUniSSE(w http.ResponseWriter, r *http.Request) {
	if !s.mayStream(w, r, http.MethodGet) {
		return
	}
	req, err := connectInURL(r)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	case req == nil:
		http.Error(w, queryConnect+" is missing", http.StatusBadRequest)
		return
	}
	resumed := &resumed{}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		resumed.coming, resumed.places = true, parsePlaces(id)
	}
	sock, more, err := s.takeOver(w, typeEvents)
	if err != nil {
		s.log.Info("stream refused", "remote", clientAddress(r, s.o.TrustedHops), "error", err)
		return
	}
	c := s.open(sock, r, formatUniSSE)
	if c == nil {
		return
	}
	c.resumed = resumed
	c.listen(req)
	go c.readStream(more)
}

// resumed is what a client of server-sent events came back with, and what ids it gets.
type resumed struct {
	coming bool // it brought an id
	places map[string]bus.Position
	one    bool // one recoverable subscription: the ids are the publications'
}

// place is a position in a channel.
type place struct {
	channel string
	bus.Position
}

// resume makes recoveries of what the client came back with. Named are the channels of its token. A recoverable channel that the id doesn't name
// can't be recovered, and is said not to be. It also decides, before anything is subscribed to, which ids there will be.
func (c *client) resume(req *protocol.ConnectRequest, named []string) {
	names := slices.Clone(named)
	for name := range req.Subs {
		names = append(names, name)
	}
	slices.Sort(names)
	several := 0
	for _, name := range slices.Compact(names) {
		if !recoverable(c.s.o.Table, name) {
			continue
		}
		several++
		if !c.resumed.coming {
			continue
		}
		if req.Subs == nil {
			req.Subs = map[string]*protocol.SubscribeRequest{}
		}
		sub := req.Subs[name]
		if sub == nil { // the token's: it is looked up there, and not asked for
			sub = &protocol.SubscribeRequest{Channel: name}
			req.Subs[name] = sub
		}
		if at, ok := c.resumed.places[name]; ok {
			sub.Recover, sub.Epoch, sub.Offset = true, at.Epoch, at.Offset
		} else if !sub.Recover {
			sub.Recover, sub.Epoch = true, noEpoch
		}
	}
	c.resumed.one = several == 1
	if c.resumed.one {
		c.out.SetFormat(formatUniSSEOne)
	}
}

// noEpoch is the epoch of no channel: theirs have a dot.
const noEpoch = "none"

// recoverable reports whether a channel's namespace has every subscription recover. What only the client has asked to recover has no ids: frames are
// shared with those who have not.
func recoverable(table *channel.Table, name string) bool {
	ns, err := table.Lookup(name)
	return err == nil && ns.HistorySize > 0 && ns.Recover
}

// resumedFrame is the connect push, and then what was missed as pushes of its own: so each has its id, and a reader need only know one kind of
// publication.
func (c *client) resumedFrame(push *protocol.Push) []byte {
	var names []string
	for name := range push.Connect.Subs {
		if recoverable(c.s.o.Table, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return chunk(func(b []byte) []byte {
		b = appendRetry(b, retryLeast+rand.N(retryMost-retryLeast))
		missed := make([][]*protocol.Publication, len(names))
		tops := make([]place, len(names))
		for i, name := range names {
			sub := push.Connect.Subs[name]
			missed[i], sub.Publications = sub.Publications, nil
			tops[i] = place{name, bus.Position{Epoch: sub.Epoch, Offset: sub.Offset}}
		}
		b = appendEvent(b, push.AppendJSON) // without an id: it would be ahead of what follows
		for i, pubs := range missed {
			for _, p := range pubs {
				one := &protocol.Push{Channel: names[i], Pub: p}
				if c.resumed.one {
					b = appendPushWithID(b, one, place{names[i], bus.Position{Epoch: tops[i].Epoch, Offset: p.Offset}})
				} else {
					b = appendEvent(b, one.AppendJSON)
				}
			}
		}
		if len(tops) == 0 {
			return b
		}
		return append(appendID(b, tops...), '\n') // an event of an id alone is remembered and not dispatched
	})
}

// pingWithID sends a ping with the id of where all recoverable subscriptions stand, between their publications.
func (c *client) pingWithID() {
	c.s.hub.Later(c.out, func() {
		var at []place
		c.mu.Lock()
		for name, sub := range c.subs {
			if sub.hub != nil && sub.ns.HistorySize > 0 && sub.ns.Recover {
				at = append(at, place{name, sub.hub.Position()})
			}
		}
		c.mu.Unlock()
		slices.SortFunc(at, func(a, b place) int { return strings.Compare(a.channel, b.channel) })
		c.out.Send(chunk(func(b []byte) []byte {
			if len(at) > 0 {
				b = appendID(b, at...)
			}
			return appendPingEvent(b)
		}))
	})
}

// appendPushEvent is appendEventJSON without the reply around a push.
func appendPushEvent(b []byte, r *protocol.Reply, _ bool) []byte {
	return appendEvent(b, r.Push.AppendJSON)
}

func appendPushWithID(b []byte, p *protocol.Push, at place) []byte {
	return appendEvent(appendID(b, at), p.AppendJSON)
}

// appendID appends the line of an id: epoch:offset:channel, separated by commas. One that would be too long is empty, which has the client
// forget what it had.
func appendID(b []byte, places ...place) []byte {
	b = append(b, "id: "...)
	from := len(b)
	for i, p := range places {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, p.Epoch...), ':')
		b = append(strconv.AppendUint(b, p.Offset, 10), ':')
		b = append(b, url.QueryEscape(p.channel)...)
	}
	if len(b)-from > lastEventBytes {
		b = b[:from]
	}
	return append(b, '\n')
}

// parsePlaces reads an id. What can't be read names nothing, and so recovers nothing.
func parsePlaces(id string) map[string]bus.Position {
	if len(id) > lastEventBytes {
		return nil
	}
	all := map[string]bus.Position{}
	for one := range strings.SplitSeq(id, ",") {
		epoch, rest, _ := strings.Cut(one, ":")
		offset, escaped, _ := strings.Cut(rest, ":")
		n, err := strconv.ParseUint(offset, 10, 64)
		name, wrong := url.QueryUnescape(escaped)
		if err != nil || wrong != nil || epoch == "" || name == "" {
			return nil
		}
		all[name] = bus.Position{Epoch: epoch, Offset: n}
	}
	return all
}

func appendRetry(b []byte, after time.Duration) []byte {
	b = append(b, "retry: "...)
	return append(strconv.AppendInt(b, after.Milliseconds(), 10), '\n')
}

// lastEvent is the bye: the disconnect push, and when to come back.
func lastEvent(d disconnect) []byte {
	after := retryRefused
	if d.reconnects() {
		after = retryLeast + rand.N(retryMost-retryLeast)
	}
	p := &protocol.Push{Disconnect: &protocol.Disconnect{Code: uint32(d.code), Reason: d.reason}}
	return append(chunk(func(b []byte) []byte { return appendEvent(appendRetry(b, after), p.AppendJSON) }), lastChunk...)
}

// reconnects reports whether a client should come back.
func (d disconnect) reconnects() bool {
	return d.code != byeTooLarge.code && (d.code < 3500 || d.code >= 4000 && d.code < 4500)
}
