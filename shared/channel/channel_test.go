package channel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tideline/shared/limit"
)

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"chat:a": true, "system": true, "todos:#ann": true, "a:b:c#d#e": true,
		strings.Repeat("x", limit.ChannelBytes): true, strings.Repeat("x", limit.ChannelBytes+1): false,
		"": false, "a b": false, "a\n": false, "a\x00": false, "{a}": false, "a}": false, "ä": false, "\x7f": false,
	} {
		if err := Validate(name); (err == nil) != good || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestWhoMayDoWhatInTheShippedNamespaces(t *testing.T) {
	table := Shipped()
	if got := strings.Join(table.Names(), " "); got != "chat docker logs system todos user" || table.Anonymous {
		t.Fatalf("shipped %s, anonymous %v", got, table.Anonymous)
	}
	nobody, ann, op := Identity{}, Identity{User: "ann"}, Identity{User: "op", Roles: []string{RoleOperator}}
	for _, c := range []struct {
		id                 Identity
		name               string
		subscribe, publish bool // publish as a subscriber
	}{
		{nobody, "system", true, false}, {nobody, "chat:a", false, true}, {nobody, "todos:#", false, false}, {nobody, "docker:x", false, false},
		{ann, "system", true, false}, {ann, "chat:a", true, true}, {ann, "todos:#ann", true, false}, {ann, "todos:#bob", false, false},
		{ann, "todos:#ann#bob", false, false}, {ann, "todos:x#ann", true, false}, {ann, "todos:", false, false}, {ann, "user:#ann", true, false},
		{ann, "chat:x#bob", false, true}, {ann, "docker:logs:x", false, false}, {op, "docker:logs:x", true, false}, {op, "logs:g", true, false},
		{op, "todos:#ann", false, false},
	} {
		ns, err := table.Lookup(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := ns.MaySubscribe(c.id, c.name) == nil; got != c.subscribe {
			t.Errorf("%q subscribes to %s: %v", c.id.User, c.name, got)
		}
		if got := ns.MayPublish(c.id, c.name, true) == nil; got != c.publish {
			t.Errorf("%q publishes on %s: %v", c.id.User, c.name, got)
		}
		if ns.MayPublish(c.id, c.name, false) == nil {
			t.Errorf("%q publishes on %s without a subscription", c.id.User, c.name)
		}
	}
	if _, err := table.Lookup("nope:x"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown namespace: %v", err)
	}
}

func TestAWrongFileNamesTheLineAndTheReason(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"not JSON", "{\n  nope", "line 2: invalid character"},
		{"cut short", "{\n\"namespaces\": [", "line 2: "},
		{"empty", "", "line 1: EOF"},
		{"no namespaces", "{}", "no namespaces"},
		{"unknown field above", "{\n\"x\": 1}", `line 2: json: unknown field "x"`},
		{"unknown field", "{\"namespaces\": [\n{\"name\": \"a\"},\n{\"name\": \"b\",\n \"histroy\": 1}]}", `line 4: json: unknown field "histroy"`},
		{"wrong type", "{\"namespaces\": [\n{\"name\": \"a\",\n\"recover\": \"yes\"}]}", "line 3: "},
		{"bad duration", "{\"namespaces\": [\n{\"name\": \"a\", \"history\": {\"size\": 1, \"ttl\": 60}}]}", `60 is not a duration such as "24h"`},
		{"recover without history", "{\"namespaces\": [\n\n{\"name\": \"a\", \"recover\": true}]}", `line 3: namespace "a": recover needs history`},
		{"half a history", `{"namespaces": [{"name": "a", "history": {"size": 5}}]}`, "history needs both"},
		{"history kept too long", `{"namespaces": [{"name": "a", "history": {"size": 5, "ttl": "720h"}}]}`, "must be under 720h"},
		{"twice", "{\"namespaces\": [{\"name\": \"a\"},\n{\"name\": \"a\"}]}", "line 2: namespace \"a\": defined twice"},
		{"access", `{"namespaces": [{"name": "a", "subscribe": "all"}]}`, `subscribe: "all" is none of`},
		{"role without a name", `{"namespaces": [{"name": "a", "publish": "role:"}]}`, `publish: "role:" is none of`},
		{"subscribers subscribe", `{"namespaces": [{"name": "a", "subscribe": "subscribers"}]}`, "subscribe:"},
		{"internal name", `{"namespaces": [{"name": "$control"}]}`, "name not allowed"},
		{"joins without presence", `{"namespaces": [{"name": "a", "joinLeave": true}]}`, "need presence"},
		{"ack without recover", `{"namespaces": [{"name": "a", "ack": true}]}`, "ack needs recover"},
		{"newest with recover", `{"namespaces": [{"name": "a", "recover": true, "newest": true, "history": {"size": 1, "ttl": "1m"}}]}`, "contradict"},
		{"stamped bytes", `{"namespaces": [{"name": "a", "stamped": true, "binary": true}]}`, "contradict"},
		{"too much data", `{"namespaces": [{"name": "a", "dataBytes": 65537}]}`, "65537 bytes is not from 1 to 65536"},
		{"too fast", `{"namespaces": [{"name": "a", "publishRate": 101}]}`, "publish rate 101"},
		{"trailing", `{"namespaces": [{"name": "a"}]} x`, "something follows the end"},
	} {
		_, err := Parse([]byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	_, err := Parse([]byte("{\"namespaces\": [{\"name\": \"a\", \"recover\": true},\n{\"name\": \"b\", \"joinLeave\": true}]}"))
	if err == nil || !strings.Contains(err.Error(), "line 1:") || !strings.Contains(err.Error(), "line 2:") {
		t.Errorf("not every mistake is told: %v", err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "channels.json")
	if err := os.WriteFile(path, []byte(`{"anonymous": true, "namespaces": [{"name": "room", "subscribe": "role:member", "token": true}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	table, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := table.Lookup("room:1")
	if err != nil || !ns.Token || !table.Anonymous || ns.DataBytes != limit.DataBytes {
		t.Errorf("%+v, %v", ns, err)
	}
	if ns.MaySubscribe(Identity{User: "a", Roles: []string{"member"}}, "room:1") != nil || ns.MaySubscribe(Identity{User: "a"}, "room:1") == nil {
		t.Error("roles")
	}
	if _, err := Load(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if table, err := Load(""); err != nil || len(table.Names()) != 6 {
		t.Errorf("no path: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(shipped)
	f.Add([]byte(`{"namespaces": [{"name": "a", "history": {"size": 1, "ttl": "1m"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := Parse(data)
		if err == nil && len(table.Names()) == 0 {
			t.Error("a table without namespaces was taken")
		}
	})
}

func FuzzPermissions(f *testing.F) {
	f.Add("todos:#ann", "ann")
	f.Add("chat:a#b", "b")
	table := Shipped()
	f.Fuzz(func(t *testing.T, name, user string) {
		ns, err := table.Lookup(name)
		if err != nil {
			return
		}
		owner, personal := OwnerOf(name)
		if ns.MaySubscribe(Identity{User: user}, name) == nil && personal && (owner != user || owner == "") {
			t.Errorf("%q may subscribe to %q", user, name)
		}
		if !personal && ns.Subscribe == Owner && ns.MaySubscribe(Identity{User: user}, name) == nil {
			t.Errorf("%q may subscribe to nobody's %q", user, name)
		}
	})
}
