// Package bus carries publications between everything that publishes and every node that holds sockets, through Redis.
//
// It is also the publisher that other people's Go code uses:
//
//	b, err := bus.Open(ctx, bus.Options{URL: "rediss://…", Stage: "prod"})
//	…
//	res, err := b.Publish(ctx, bus.Publication{Channel: "chat:lobby", Data: []byte(`{"text":"hi"}`), ID: "order-17:shipped"})
//
// Publishing is one atomic script and one round trip: the same id twice gives one publication and the first position; a version
// that is not above the last one of its key is acknowledged and not published. Within one channel, positions (epoch, offset)
// order everything. When Redis is away calls fail with ErrUnavailable within their deadline; nothing is queued.
package bus

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"
)

// Errors to branch on; test with errors.Is. Anything else is wrapped with the verb and the channel.
var (
	// ErrUnavailable says that Redis could not be asked, or did not answer in time. The call may be repeated with the same id.
	ErrUnavailable = errors.New("bus unavailable")
	// ErrFenced says that the lock that a publication names is held by somebody else, or by nobody.
	ErrFenced = errors.New("lock lost")
	// ErrTooLarge says that the data, the id, the key or the tags are past their limit.
	ErrTooLarge = errors.New("publication too large")
	// ErrInvalid says that the channel name, or a field of the publication, is malformed.
	ErrInvalid = errors.New("publication invalid")
	// ErrUnrecoverable says that the publications since a position can't be read any more.
	ErrUnrecoverable = errors.New("position unrecoverable")
)

// Position is a place in one channel's order. Offsets of different epochs can't be compared. The zero Position names no place.
type Position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// ClientInfo says which client published, joined or left.
type ClientInfo struct {
	User     string          `json:"user"`
	Client   string          `json:"client"`
	ConnInfo json.RawMessage `json:"connInfo,omitempty"`
	ChanInfo json.RawMessage `json:"chanInfo,omitempty"`
}

// History says what a channel keeps of what was published. The zero History keeps nothing; positions are kept all the same.
type History struct {
	Size int           // publications
	TTL  time.Duration // after the last publication
}

// Publication is what is published, and what a subscriber hears.
//
// Publishing: Channel and Data are required; Offset is ignored; Time is set by the bus when it is zero.
// Data is opaque here: one line of JSON in UTF-8, or, with Binary, any bytes. SetData tells them apart; the doors that take only
// JSON validate and compact it themselves.
type Publication struct {
	Channel string
	Data    []byte
	// Binary: Data is not JSON. Clients that speak Protobuf get it; one that speaks JSON is disconnected (3506), because it can't.
	Binary bool
	// ID makes publishing idempotent for limit.IdempotencyTTL. Empty: the bus makes a random one, which covers its own retries.
	ID string
	// Key and Version (> 0) order states of one thing: a version that is not above the last one is not published.
	Key     string
	Version uint64
	// Info says which client published; nil for a server.
	Info *ClientInfo
	// Tags go along to every subscriber, at most limit.TagsBytes of them; trace.Tag is the trace's.
	Tags map[string]string
	// Time of the publication by the publisher's clock, in milliseconds since 1970.
	Time   int64
	Offset uint64
	// History is what the channel keeps, by its namespace. Publishing only.
	History History
	// Fence, when set, publishes only while the lock still holds exactly this token. See Lock.
	Fence *Fence
}

// SetData sets Data to bytes of which nobody has said what they are, unchanged, and Binary unless they are JSON in UTF-8 on one line.
func (p *Publication) SetData(data []byte) {
	p.Data = data
	p.Binary = !utf8.Valid(data) || bytes.ContainsAny(data, "\r\n") || !json.Valid(data)
}

// Fence names a lock in the channel's partition, the token that must hold it, and a cursor that is written in the same step.
type Fence struct {
	Lock   string
	Token  string
	Cursor string
}

// Result says what became of a publication.
type Result struct {
	Position Position
	// Duplicate: the id was published before, at Position. Nothing was published now.
	Duplicate bool
	// Superseded: the key already had this version or a higher one. Nothing was published; Position is the channel's top.
	Superseded bool
}

// Page asks for a part of a channel's history.
type Page struct {
	// Since, when set, starts after that position (reverse: before it). Another epoch than the channel's gives ErrUnrecoverable.
	Since *Position
	// Limit: 0 asks for the position alone, negative for as much as there is (at most limit.HistoryPage).
	Limit   int
	Reverse bool
}

// Kind of a Message that a Subscriber hears.
type Kind uint8

// Kinds of messages on a channel.
const (
	KindPublication Kind = iota
	KindJoin
	KindLeave
	// KindRemoved says that a channel's history up to and with a position was removed (RemoveHistory): who keeps publications forgets them.
	KindRemoved
)

// Message is what a Subscriber hears on a channel.
type Message struct {
	Kind Kind
	// Epoch and Publication.Offset place a KindPublication and a KindRemoved. Joins and leaves have no position.
	Epoch       string
	Publication Publication
	// Info is who joined or left.
	Info ClientInfo
}

// Handler hears what a Subscriber receives. Calls for one channel come one at a time and in order; calls for different channels may
// be concurrent. A method must not block and must not call the Subscriber back synchronously, except Subscribe and Unsubscribe.
type Handler interface {
	// Heard delivers one message of a channel, in the order of its connection. While connections are rotated, a message may
	// be heard twice; across a reconnect, any number may be missing: positions tell.
	Heard(channel string, m Message)
	// Confirmed says that the server has confirmed the channel's subscription, for the first time or again after its
	// connection was rebuilt: messages published from here on will be heard; what came before must be read from the stream.
	Confirmed(channel string)
	// Interrupted says that the channel's subscription is gone and is being rebuilt; Confirmed will follow. It is also called
	// when messages had to be dropped because the inbox was full, and then Confirmed follows at once.
	Interrupted(channel string)
}
