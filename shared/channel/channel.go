// Package channel knows what a channel may be called, which namespace it belongs to, and who may do what there.
package channel

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tideline/shared/limit"
)

// Errors of names and permissions; test with errors.Is.
var (
	// ErrName says that a name is empty, too long, or has a byte that channels may not have.
	ErrName = errors.New("channel name not allowed")
	// ErrUnknown says that no namespace has this name.
	ErrUnknown = errors.New("unknown channel namespace")
	// ErrDenied says that this identity may not do this on this channel.
	ErrDenied = errors.New("permission denied")
)

// RoleOperator is the role that may watch container logs and see all nodes.
const RoleOperator = "operator"

// Canary is the channel on which one node publishes every limit.CanaryInterval and all nodes listen. It is in the namespace system, beside the channel
// system itself, whose subscribers would otherwise be woken by it and whose short history it would fill.
const Canary = "system:canary"

// Identity is who a connection belongs to. The zero Identity is anonymous.
type Identity struct {
	User  string
	Roles []string
}

// SignedIn reports whether the identity names a user.
func (i Identity) SignedIn() bool { return i.User != "" }

// Access says who may subscribe or publish. Beside the constants there is "role:<name>" for those whose token carries that role.
type Access string

// Who may subscribe or publish.
const (
	Nobody      Access = "nobody"      // only servers
	Everyone    Access = "everyone"    // anonymous connections too
	SignedIn    Access = "signed-in"   // any user
	Owner       Access = "owner"       // the user after the first '#'
	Subscribers Access = "subscribers" // publish only: whoever is subscribed
	Operator           = Access(rolePrefix + RoleOperator)
)

const rolePrefix = "role:"

func (a Access) valid() bool {
	switch a {
	case Nobody, Everyone, SignedIn, Owner, Subscribers:
		return true
	}
	role, ok := strings.CutPrefix(string(a), rolePrefix)
	return ok && role != ""
}

// Namespace is what all channels of one name before the ':' have in common.
type Namespace struct {
	Name string
	// Subscribe and Publish: empty is Nobody.
	Subscribe Access
	Publish   Access
	// Token: a subscription token for the channel is needed on top, so that an application decides who is in.
	Token bool
	// Stamped: what a client publishes is wrapped by the server as {id, user, time, node, data}.
	Stamped bool
	// Binary: clients that speak Protobuf may publish bytes that are no JSON. Whoever subscribes must speak Protobuf, too.
	Binary      bool
	HistorySize int // publications; 0 keeps none
	HistoryTTL  time.Duration
	// Recover: subscriptions are positioned and recoverable, whether or not the client asks.
	Recover bool
	// Presence: members are kept. JoinLeave: they are announced to subscribers.
	Presence, JoinLeave bool
	// Ack: clients confirm what they have dealt with, and what they have not is counted.
	Ack bool
	// Newest: a subscriber whose queue is half full is dropped from the channel and told (2500), and goes on with the newest,
	// where others are disconnected as slow when it is full.
	Newest bool
	// DataBytes is the most that a client may publish at once; 0 is limit.DataBytes.
	DataBytes int
	// PublishRate is how many publications a second one client may make in the namespace; 0 is limit.PublishesPerSecond.
	PublishRate int
}

func (n Namespace) mistakes() (all []string) {
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	wrong(n.Name == "" || strings.ContainsAny(n.Name, ":#$") || Validate(n.Name) != nil, "name not allowed")
	wrong(!n.Subscribe.valid() || n.Subscribe == Subscribers, "subscribe: %q is none of nobody, everyone, signed-in, owner, role:<name>", n.Subscribe)
	wrong(!n.Publish.valid(), "publish: %q is none of nobody, everyone, signed-in, owner, subscribers, role:<name>", n.Publish)
	wrong(n.HistorySize < 0 || n.HistorySize > maxHistory, "history size %d is not from 0 to %d", n.HistorySize, maxHistory)
	wrong((n.HistorySize > 0) != (n.HistoryTTL > 0), "history needs both a size and a TTL, or neither")
	wrong(n.HistoryTTL >= limit.MetaTTL, "history TTL %v must be under %v", n.HistoryTTL, limit.MetaTTL)
	wrong(n.Recover && n.HistorySize == 0, "recover needs history")
	wrong(n.JoinLeave && !n.Presence, "join and leave need presence")
	wrong(n.Binary && n.Stamped, "binary and stamped contradict each other: the stamp is JSON")
	wrong(n.Ack && !n.Recover, "ack needs recover: what was not confirmed is delivered again by recovery")
	wrong(n.Newest && n.Recover, "newest and recover contradict each other: recovery would bring back what was dropped")
	wrong(n.DataBytes < 0 || n.DataBytes > limit.DataBytes, "data of %d bytes is not from 1 to %d", n.DataBytes, limit.DataBytes)
	wrong(n.PublishRate < 0 || n.PublishRate > limit.CommandsPerSecond, "publish rate %d is not from 1 to %d a second", n.PublishRate, limit.CommandsPerSecond)
	return all
}

// maxHistory bounds a namespace's history size: a channel's stream is one key in Redis's memory.
const maxHistory = 100_000

// Table is a set of namespaces. It is read-only after it was made and safe for concurrent use.
type Table struct {
	byName map[string]Namespace
	// Anonymous: connections without a token are let in, as nobody.
	Anonymous bool
}

// NewTable checks the namespaces and makes a table of them; every mistake is in the error.
func NewTable(namespaces ...Namespace) (*Table, error) {
	t := &Table{byName: make(map[string]Namespace, len(namespaces))}
	var errs []error
	for _, n := range namespaces {
		for _, m := range t.add(n) {
			errs = append(errs, fmt.Errorf("namespace %q: %s", n.Name, m))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

func (t *Table) add(n Namespace) (mistakes []string) {
	if n.Subscribe == "" {
		n.Subscribe = Nobody
	}
	if n.Publish == "" {
		n.Publish = Nobody
	}
	if n.DataBytes == 0 {
		n.DataBytes = limit.DataBytes
	}
	if n.PublishRate == 0 {
		n.PublishRate = limit.PublishesPerSecond
	}
	mistakes = n.mistakes()
	if _, twice := t.byName[n.Name]; twice {
		mistakes = append(mistakes, "defined twice")
	}
	t.byName[n.Name] = n
	return mistakes
}

// Names lists the namespaces in alphabetical order.
func (t *Table) Names() []string {
	names := make([]string, 0, len(t.byName))
	for n := range t.byName {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Validate answers nil, or an error that wraps ErrName and says what is wrong with the name.
func Validate(name string) error {
	if name == "" {
		return fmt.Errorf("%w: empty", ErrName)
	}
	if len(name) > limit.ChannelBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrName, len(name), limit.ChannelBytes)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c <= ' ' || c > '~':
			return fmt.Errorf("%w: byte %d is not printable ASCII", ErrName, i)
		case c == '{' || c == '}':
			return fmt.Errorf("%w: byte %d is a brace", ErrName, i)
		}
	}
	return nil
}

// NamespaceOf is the part before the first ':', or the whole name.
func NamespaceOf(name string) string {
	ns, _, _ := strings.Cut(name, ":")
	return ns
}

// OwnerOf is everything after the first '#', compared exactly; ok is false for a channel that is not personal.
func OwnerOf(name string) (user string, ok bool) {
	_, user, ok = strings.Cut(name, "#")
	return user, ok
}

// Personal names a user's own channel in a namespace.
func Personal(namespace, user string) string { return namespace + ":#" + user }

// Lookup validates a name and finds its namespace.
func (t *Table) Lookup(name string) (Namespace, error) {
	if err := Validate(name); err != nil {
		return Namespace{}, err
	}
	n, ok := t.byName[NamespaceOf(name)]
	if !ok {
		return Namespace{}, fmt.Errorf("%w: %q", ErrUnknown, NamespaceOf(name))
	}
	return n, nil
}

// MaySubscribe answers nil or ErrDenied. A name with '#' is personal in every namespace, whatever the namespace allows.
func (n Namespace) MaySubscribe(id Identity, name string) error {
	if user, personal := OwnerOf(name); personal && (user == "" || user != id.User) {
		return ErrDenied
	}
	return n.allow(n.Subscribe, id, name)
}

// MayPublish answers nil or ErrDenied for a client's own publication.
func (n Namespace) MayPublish(id Identity, name string, subscribed bool) error {
	if n.Publish == Subscribers {
		if !subscribed {
			return ErrDenied
		}
		return nil
	}
	if user, personal := OwnerOf(name); personal && (user == "" || user != id.User) {
		return ErrDenied
	}
	return n.allow(n.Publish, id, name)
}

func (n Namespace) allow(a Access, id Identity, name string) error {
	ok := false
	switch a {
	case Everyone:
		ok = true
	case SignedIn:
		ok = id.SignedIn()
	case Owner:
		user, personal := OwnerOf(name)
		ok = personal && user != "" && user == id.User
	default:
		role, named := strings.CutPrefix(string(a), rolePrefix)
		ok = named && slices.Contains(id.Roles, role)
	}
	if !ok {
		return ErrDenied
	}
	return nil
}
