package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"time"
)

// room is where verify chats; its lines stay in the room's history for as long as others do.
const room = "chat:verify"

// conversation: a todo heard on a socket, a chat across two nodes, a reconnect that misses nothing.
func (v *verification) conversation(ann *visitor) {
	v.todo(ann)
	one, first := v.enter(ann)
	if one == nil {
		return
	}
	defer one.client.Close()
	two, second := v.elsewhere(first)
	if two == nil {
		return
	}
	defer two.client.Close()
	word := "verify-" + rand.Text()
	started := time.Now()
	if err := v.say(two, word); err != nil {
		v.bad("chat", "%v", err)
		return
	}
	if _, err := one.hear(v.ctx, "chat", says(word)); err != nil {
		v.bad("chat", "%v", err)
		return
	}
	v.ok("chat", "from node %s to node %s in %v", second, first, time.Since(started).Round(time.Millisecond))
	v.recovery(one, two)
}

// todo is written by REST and heard on the user's own channel.
func (v *verification) todo(ann *visitor) {
	s, err := connect(ann, "todos:#"+ann.User)
	if err != nil {
		v.bad("todo", "%v", err)
		return
	}
	defer s.client.Close()
	if _, err := s.hear(v.ctx, "subscription to the user's todos", subscribed); err != nil {
		v.bad("todo", "%v", err)
		return
	}
	var made struct{ ID string }
	started := time.Now()
	if _, err := ann.ask(v.ctx, http.MethodPost, "/api/todos", map[string]string{"title": "verify"}, &made); err != nil {
		v.bad("todo", "%v", err)
		return
	}
	if _, err := s.hear(v.ctx, "todo.created", says(made.ID)); err != nil {
		v.bad("todo", "was written, but %v", err)
	} else {
		v.ok("todo", "written and heard in %v", time.Since(started).Round(time.Millisecond))
	}
	if _, err := ann.ask(v.ctx, http.MethodDelete, "/api/todos/"+made.ID, nil, nil); err != nil {
		v.bad("todo", "delete: %v", err)
	}
}

// enter the room; nil after it was reported.
func (v *verification) enter(b *visitor) (*socket, string) {
	s, err := connect(b, room)
	if err != nil {
		v.bad("socket", "%v", err)
		return nil, ""
	}
	node, err := s.connected(v.ctx)
	if err == nil {
		_, err = s.hear(v.ctx, "subscription to "+room, subscribed)
	}
	if err != nil {
		s.client.Close()
		v.bad("socket", "%v", err)
		return nil, ""
	}
	v.ok("socket", "at node %s", node)
	return s, node
}

// elsewhere sends new visitors in until one of them meets another node.
func (v *verification) elsewhere(first string) (*socket, string) {
	quiet := &verification{report: &report{out: discard{}}, ctx: v.ctx, url: v.url}
	for range visitors {
		b := quiet.session("another visitor")
		if b == nil {
			break
		}
		s, node := quiet.enter(b)
		if s == nil {
			break
		}
		if node != first {
			v.ok("second socket", "at node %s", node)
			return s, node
		}
		s.client.Close()
	}
	v.bad("second socket", "%d new visitors all met node %s: is there only one?", visitors, first)
	return nil, ""
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// say something in the room, as a client.
func (v *verification) say(s *socket, text string) error {
	_, err := s.sub.Publish(v.ctx, []byte(fmt.Sprintf(`{"text":%q}`, text)))
	return err
}

// recovery: one goes away, two speaks, one comes back and hears it.
func (v *verification) recovery(one, two *socket) {
	if err := one.client.Disconnect(); err != nil {
		v.bad("recovery", "%v", err)
		return
	}
	word := "while-away-" + rand.Text()
	if err := v.say(two, word); err != nil {
		v.bad("recovery", "%v", err)
		return
	}
	if err := one.client.Connect(); err != nil {
		v.bad("recovery", "%v", err)
		return
	}
	back, err := one.hear(v.ctx, "subscription after the reconnect", subscribed)
	if err != nil {
		v.bad("recovery", "%v", err)
		return
	}
	if !back.wasRecovering || !back.recovered {
		v.bad("recovery", "came back without what was missed (recovering %v, recovered %v)", back.wasRecovering, back.recovered)
		return
	}
	if _, err := one.hear(v.ctx, "what was said meanwhile", says(word)); err != nil {
		v.bad("recovery", "%v", err)
		return
	}
	v.ok("recovery", "after a reconnect nothing is missing")
}
