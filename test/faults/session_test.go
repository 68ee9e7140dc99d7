package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// session is one connection of a client.
type session struct {
	c     *client
	ws    *websocket.Conn
	ctx   context.Context
	timer sync.WaitGroup // resubscribes that are on their way

	mu      sync.Mutex // guards ws's writing side and what is below
	lastID  uint32
	pending map[uint32]pendingReply
}

type pendingReply struct {
	channel string           // of a subscribe
	answer  chan wireMessage // of anything else
	due     time.Time
}

// hello sends connect and all subscribes in one frame, as centrifuge-js does.
func (s *session) hello() error {
	var frame bytes.Buffer
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.expectLocked(pendingReply{})
	s.c.mu.Lock()
	fmt.Fprintf(&frame, `{"id":%d,"connect":{"token":%q,"name":"faults","subs":%s}}`, id, s.c.token, s.c.positionsLocked())
	for _, name := range s.c.order {
		if s.c.bySrv {
			break
		}
		frame.WriteByte('\n')
		frame.Write(s.c.subs[name].command(s.expectLocked(pendingReply{channel: name})))
	}
	s.c.mu.Unlock()
	return s.ws.WriteMessage(websocket.TextMessage, frame.Bytes())
}

// positionsLocked is what the connect command says of subscriptions that the server makes.
func (c *client) positionsLocked() []byte {
	subs := map[string]subscribeRequest{}
	for name, r := range c.subs {
		if req := r.request(); c.bySrv && req.Recover {
			req.Channel = ""
			subs[name] = req
		}
	}
	b, err := json.Marshal(subs)
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}

func (s *session) expectLocked(p pendingReply) uint32 {
	s.lastID++
	p.due = time.Now().Add(replyWait)
	s.pending[s.lastID] = p
	return s.lastID
}

func (s *session) send(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ws.WriteMessage(websocket.TextMessage, frame)
}

// resubscribe subscribes again after a jittered moment.
func (s *session) resubscribe(channel string, most time.Duration) {
	s.timer.Go(func() {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(rand.N(most)):
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.c.mu.Lock()
		frame := s.c.subs[channel].command(s.expectLocked(pendingReply{channel: channel}))
		s.c.mu.Unlock()
		_ = s.ws.WriteMessage(websocket.TextMessage, frame) // the reader sees a broken connection
	})
}

// forget answers those who still wait for a reply of a connection that has ended.
func (s *session) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.pending {
		delete(s.pending, id)
		if p.answer != nil {
			close(p.answer)
		}
	}
}

// patience is when the reader gives the connection up: at the oldest unanswered command, or after too long a silence.
func (s *session) patience() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := time.Now().Add(silenceMax)
	for _, p := range s.pending {
		if p.due.Before(due) {
			due = p.due
		}
	}
	return due
}

// read reads until the connection ends and says why.
func (s *session) read() error {
	for {
		_ = s.ws.SetReadDeadline(s.patience())
		_, data, err := s.ws.ReadMessage()
		if err != nil {
			return err
		}
		for line := range bytes.Lines(data) {
			if err := s.line(bytes.TrimSpace(line)); err != nil {
				return err
			}
		}
	}
}

func (s *session) line(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if string(data) == "{}" {
		return s.send(data)
	}
	var m wireMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%q: %w", data, err)
	}
	if m.ID != 0 {
		return s.reply(m)
	}
	if m.Push != nil {
		return s.push(m.Push)
	}
	return nil
}

func (s *session) reply(m wireMessage) error {
	s.mu.Lock()
	p := s.pending[m.ID]
	delete(s.pending, m.ID)
	s.mu.Unlock()
	c := s.c
	switch {
	case p.answer != nil:
		p.answer <- m // it has room for one
	case p.channel == "" && m.Error != nil:
		return m.Error
	case p.channel == "":
		now := time.Now()
		c.node.Store(&m.Connect.Data.Node)
		c.id.Store(&m.Connect.Client)
		c.connectedAt.Store(now.UnixNano())
		c.connects.Add(1)
		if c.onConnect != nil {
			c.onConnect(now)
		}
		c.mu.Lock()
		for name, sub := range m.Connect.Subs {
			if r := c.subs[name]; r != nil && c.bySrv {
				r.subscribed(sub)
			}
		}
		c.mu.Unlock()
	case m.Error != nil:
		if !m.Error.Temporary {
			return m.Error
		}
		c.subErrors.Add(1)
		s.resubscribe(p.channel, 500*time.Millisecond)
	default:
		c.mu.Lock()
		c.subs[p.channel].subscribed(m.Subscribe)
		c.mu.Unlock()
	}
	return nil
}

func (s *session) push(p *wirePush) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.subs[p.Channel]
	switch {
	case p.Disconnect != nil:
		return &websocket.CloseError{Code: p.Disconnect.Code, Text: p.Disconnect.Reason}
	case r == nil:
		return fmt.Errorf("push on %q, which was not subscribed to", p.Channel)
	case p.Pub != nil:
		r.publication(p.Pub)
	case p.Join != nil:
		r.joins = append(r.joins, p.Join.Info.Client)
	case p.Leave != nil:
		r.leaves = append(r.leaves, p.Leave.Info.Client)
	case p.Unsubscribe != nil:
		r.unsubscribed(p.Unsubscribe.Code)
		if p.Unsubscribe.Code < 2500 {
			c.broken = fmt.Sprintf("unsubscribed with %d", p.Unsubscribe.Code)
			return errors.New(c.broken)
		}
		s.resubscribe(p.Channel, 100*time.Millisecond)
	}
	return nil
}
