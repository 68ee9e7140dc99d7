package swarm

import (
	"bytes"
	"fmt"
	"strconv"
)

// Position is where a subscriber of a channel with history stands.
type Position struct {
	Epoch  string
	Offset uint64
}

// Dialect is how a kind of server is spoken to. A text that carries publications is never shown to it.
type Dialect interface {
	// Path of the upgrade request.
	Path(channel string) string
	// Opening is what the client sends when the socket stands; since is where to recover from, or nil. Empty: it waits.
	Opening(token, channel string, since *Position) string
	// Heard reads a text: what to answer, and whether the channel is subscribed now, where that says so.
	Heard(text []byte, channel string) (answer string, subscribed bool, err error)
	// Joined finds the position in the text that says that the channel is subscribed; ok is false where there is none.
	Joined(text []byte) (at Position, ok bool)
}

// Centrifuge is the protocol of Tideline and of the centrifuge library.
type Centrifuge struct{}

// Path implements Dialect.
func (Centrifuge) Path(string) string { return "/connection/websocket" }

// Opening implements Dialect: connect and subscribe in one frame, as the SDKs do.
func (Centrifuge) Opening(token, channel string, since *Position) string {
	recovery := ""
	if since != nil {
		recovery = fmt.Sprintf(`,"recover":true,"epoch":%q,"offset":%d`, since.Epoch, since.Offset)
	}
	credentials := ""
	if token != "" {
		credentials = fmt.Sprintf(`"token":%q`, token)
	}
	return fmt.Sprintf(`{"id":1,"connect":{%s}}`+"\n"+`{"id":2,"subscribe":{"channel":%q%s}}`, credentials, channel, recovery)
}

// Heard implements Dialect.
func (Centrifuge) Heard(text []byte, _ string) (string, bool, error) {
	if string(text) == "{}" {
		return "{}", false, nil
	}
	if bytes.Contains(text, []byte(`"error":{`)) || bytes.Contains(text, []byte(`"unsubscribe":{`)) {
		return "", false, fmt.Errorf("server: %s", text)
	}
	return "", bytes.Contains(text, []byte(`"subscribe":{`)), nil
}

// Joined implements Dialect.
func (Centrifuge) Joined(text []byte) (at Position, ok bool) {
	i := bytes.Index(text, []byte(`"subscribe":{`))
	if i < 0 {
		return at, false
	}
	text = text[i:]
	if at.Epoch, ok = field(text, `"epoch":"`, '"'); !ok {
		return at, false
	}
	// The offsets of recovered publications come before the reply's own, or after, by server: the highest is the top.
	for rest := text; ; {
		i := bytes.Index(rest, []byte(`"offset":`))
		if i < 0 {
			return at, true
		}
		rest = rest[i+len(`"offset":`):]
		end := bytes.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		n, _ := strconv.ParseUint(string(rest[:max(end, 0)]), 10, 64)
		at.Offset = max(at.Offset, n)
	}
}

func field(text []byte, name string, end byte) (string, bool) {
	_, rest, ok := bytes.Cut(text, []byte(name))
	if !ok {
		return "", false
	}
	value, _, ok := bytes.Cut(rest, []byte{end})
	return string(value), ok
}

// Floor is the bare server of test/load/peers.
type Floor struct{}

// Path implements Dialect.
func (Floor) Path(channel string) string { return "/ws?channel=" + channel }

// Opening implements Dialect.
func (Floor) Opening(string, string, *Position) string { return "" }

// Heard implements Dialect.
func (Floor) Heard(text []byte, _ string) (string, bool, error) { return "", string(text) == "ok", nil }

// Joined implements Dialect.
func (Floor) Joined([]byte) (Position, bool) { return Position{}, false }

// SocketIO is Engine.IO 4 with the one namespace "/".
type SocketIO struct{}

// Path implements Dialect.
func (SocketIO) Path(string) string { return "/socket.io/?EIO=4&transport=websocket" }

// Opening implements Dialect.
func (SocketIO) Opening(string, string, *Position) string { return "" }

// Heard implements Dialect.
func (SocketIO) Heard(text []byte, channel string) (string, bool, error) {
	switch {
	case bytes.HasPrefix(text, []byte("0")):
		return "40", false, nil
	case string(text) == "2":
		return "3", false, nil
	case bytes.HasPrefix(text, []byte("40")):
		return fmt.Sprintf(`42["join",%q]`, channel), false, nil
	case bytes.HasPrefix(text, []byte("44")), bytes.HasPrefix(text, []byte("41")):
		return "", false, fmt.Errorf("server: %s", text)
	}
	return "", string(text) == `42["joined"]`, nil
}

// Joined implements Dialect.
func (SocketIO) Joined([]byte) (Position, bool) { return Position{}, false }
