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

// Identity is who a connection belongs to. The zero Identity is anonymous.
type Identity struct {
	User  string
	Roles []string
}

// SignedIn reports whether the identity names a user.
func (i Identity) SignedIn() bool { return i.User != "" }

// Access says who may subscribe or publish.
type Access string

// Who may subscribe or publish.
const (
	Nobody      Access = ""            // only servers
	Everyone    Access = "everyone"    // anonymous connections too
	SignedIn    Access = "signed-in"   // any user
	Owner       Access = "owner"       // the user after the first '#'
	Operator    Access = "operator"    // role operator
	Subscribers Access = "subscribers" // publish only: whoever is subscribed
)

// Namespace is what all channels of one name before the ':' have in common.
type Namespace struct {
	Name      string
	Subscribe Access
	Publish   Access
	// Stamped: what a client publishes is wrapped by the server as {id, user, time, node, data}.
	Stamped     bool
	HistorySize int // publications; 0 keeps none
	HistoryTTL  time.Duration
	// Recover: subscriptions are positioned and recoverable, whether or not the client asks.
	Recover bool
	// Presence: members are kept. JoinLeave: they are announced to subscribers.
	Presence, JoinLeave bool
}

// Table is a set of namespaces. It is read-only after NewTable and safe for concurrent use.
type Table struct{ byName map[string]Namespace }

// NewTable checks the namespaces and makes a table of them; every mistake is in the error.
func NewTable(namespaces ...Namespace) (*Table, error) {
	t := &Table{byName: make(map[string]Namespace, len(namespaces))}
	var errs []error
	for _, n := range namespaces {
		if n.Name == "" || strings.ContainsAny(n.Name, ":#") || Validate(n.Name) != nil {
			errs = append(errs, fmt.Errorf("namespace %q: name not allowed", n.Name))
		}
		if _, twice := t.byName[n.Name]; twice {
			errs = append(errs, fmt.Errorf("namespace %q: defined twice", n.Name))
		}
		if n.Recover && (n.HistorySize <= 0 || n.HistoryTTL <= 0) {
			errs = append(errs, fmt.Errorf("namespace %q: recover needs history size and TTL", n.Name))
		}
		if n.HistoryTTL >= limit.MetaTTL {
			errs = append(errs, fmt.Errorf("namespace %q: history TTL %v must be under %v", n.Name, n.HistoryTTL, limit.MetaTTL))
		}
		if n.JoinLeave && !n.Presence {
			errs = append(errs, fmt.Errorf("namespace %q: join and leave need presence", n.Name))
		}
		t.byName[n.Name] = n
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

// Shipped is the table that Tideline ships with.
func Shipped() *Table {
	t, err := NewTable(
		Namespace{Name: "todos", Subscribe: Owner, HistorySize: 500, HistoryTTL: 24 * time.Hour, Recover: true},
		Namespace{Name: "user", Subscribe: Owner, HistorySize: 500, HistoryTTL: 24 * time.Hour, Recover: true},
		Namespace{Name: "chat", Subscribe: SignedIn, Publish: Subscribers, Stamped: true,
			HistorySize: 1000, HistoryTTL: 7 * 24 * time.Hour, Recover: true, Presence: true, JoinLeave: true},
		Namespace{Name: "system", Subscribe: Everyone, HistorySize: 100, HistoryTTL: 10 * time.Minute},
		Namespace{Name: "docker", Subscribe: Operator, HistorySize: 200, HistoryTTL: 10 * time.Minute},
		Namespace{Name: "logs", Subscribe: Operator, HistorySize: 200, HistoryTTL: 10 * time.Minute},
	)
	if err != nil {
		panic(err) // the shipped table is a constant; a test reads it
	}
	return t
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
	case Operator:
		ok = slices.Contains(id.Roles, RoleOperator)
	}
	if !ok {
		return ErrDenied
	}
	return nil
}
