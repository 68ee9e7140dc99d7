package conn

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/centrifugal/protocol"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// sessionBytes is the longest session that is looked up: ours are 26 bytes.
const sessionBytes = 64

// session is what the commands of an HTTP stream come under, from whichever node a request reaches. It is as good as the connection itself: 130
// random bits that only the connect reply tells, no log shows, and nothing else is derived from.
type session struct {
	id   string
	turn chan struct{} // holds one token: commands come into the inbox one request after the other
}

// begin gives a client the session that its commands come under.
func (s *Service) begin(c *client) {
	c.session = &session{id: rand.Text(), turn: make(chan struct{}, 1)}
	s.mu.Lock()
	s.sessions[c.session.id] = c
	s.mu.Unlock()
}

// take puts what a client has sent into its inbox. It waits for room, as a socket's reader does, which is bounded by the time that each
// command has; the others wait for their turn.
func (x *session) take(c *client, data []byte) {
	x.turn <- struct{}{}
	defer func() { <-x.turn }()
	c.accept(data)
}

// What became of commands that were handed to a session.
var (
	errNoSession = errors.New("no such session")
	errBusy      = errors.New("the session is busy")
	errFormat    = errors.New("the commands are not in the format of the session's stream")
)

// emulate hands commands to a session of this node. nil: they are in its inbox, or the stream ends and says why.
func (s *Service) emulate(ctx context.Context, m emulated) error {
	s.mu.Lock()
	c := s.sessions[m.Session]
	s.mu.Unlock()
	if c == nil {
		return errNoSession
	}
	if m.Binary != (c.format == formatStreamProtobuf) {
		return errFormat
	}
	select {
	case c.session.turn <- struct{}{}:
	case <-ctx.Done():
		return errBusy
	}
	defer func() { <-c.session.turn }()
	c.accept(m.data)
	return nil
}

// emulated is what comes to PathEmulation, and what one node passes on to another: this as a line of JSON, then data as it is.
type emulated struct {
	Session string `json:"session"`
	Binary  bool   `json:"binary,omitempty"`
	node    string
	data    []byte
}

// Answers of one node to another.
const (
	emulatedTaken     = "taken"
	emulatedNoSession = "no session"
	emulatedBusy      = "busy"
	emulatedFormat    = "format"
)

// serveEmulation takes commands for a stream, and passes them on to the node that holds it. 204: they have reached the stream's queue, or the
// stream is about to end with the reason. Everything else says that they have not; SDKs then close the stream and come back.
func (s *Service) serveEmulation(w http.ResponseWriter, r *http.Request) {
	if !s.crossOrigin(w, r, http.MethodPost) {
		return
	}
	body, ok := s.body(w, r)
	if !ok {
		return
	}
	defer s.bodies.release(body)
	m, err := decodeEmulation(body.data, r.Header.Get("Content-Type") == typeProtobuf)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit.CommandBudget)
	defer cancel()
	address := block(clientAddress(r, s.o.TrustedHops))
	err = s.emulate(ctx, m)
	switch {
	case !errors.Is(err, errNoSession):
	case !s.strangers.take(address, time.Now()):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests for sessions that are not there", http.StatusTooManyRequests)
		return
	case m.node != "" && m.node != s.control.Address():
		if err = s.passOn(ctx, m); err == nil {
			s.strangers.giveBack(address)
		}
	}
	s.answerEmulation(w, err)
}

func (s *Service) answerEmulation(w http.ResponseWriter, err error) {
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, errNoSession):
		http.Error(w, errNoSession.Error(), http.StatusNotFound)
	case errors.Is(err, errFormat):
		http.Error(w, errFormat.Error(), http.StatusBadRequest)
	default:
		s.log.Debug("emulation failed", "error", err)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the node of this session did not take the commands", http.StatusServiceUnavailable)
	}
}

// decodeEmulation reads a request: an EmulationRequest in Protobuf, or the same in JSON with the commands as a string.
func decodeEmulation(body []byte, binary bool) (emulated, error) {
	var req struct {
		Session string `json:"session"`
		Node    string `json:"node"`
		Data    string `json:"data"`
	}
	m := emulated{Binary: binary}
	if binary {
		var p protocol.EmulationRequest
		if err := p.UnmarshalCF(body); err != nil {
			return m, errors.New("the body is no EmulationRequest")
		}
		m.Session, m.node, m.data = p.Session, p.Node, p.Data
	} else {
		if !utf8.Valid(body) {
			return m, errors.New("the body is not UTF-8")
		}
		if err := json.Unmarshal(body, &req); err != nil {
			return m, errors.New(`the body is not {"session": "…", "node": "…", "data": "…"}`)
		}
		m.Session, m.node, m.data = req.Session, req.Node, []byte(req.Data)
	}
	switch {
	case m.Session == "" || len(m.Session) > sessionBytes:
		return m, errors.New("a session is missing, or can't be one")
	case len(m.data) == 0:
		return m, errors.New("there are no commands")
	}
	return m, nil
}

// Results of passing on, as they are counted.
const (
	passedTaken       = "taken"
	passedUnknown     = "unknown"
	passedUnavailable = "unavailable"
)

// passOn hands commands to a session of another node, and waits until they are there: an answer that doesn't come is an error.
func (s *Service) passOn(ctx context.Context, m emulated) error {
	head, err := json.Marshal(m)
	if err != nil {
		return err
	}
	answer, err := s.control.Ask(ctx, m.node, append(append(head, '\n'), m.data...))
	result := passedUnavailable
	switch {
	case errors.Is(err, bus.ErrNobody):
		result, err = passedUnknown, errNoSession
	case err != nil:
	case string(answer) == emulatedTaken:
		result = passedTaken
	case string(answer) == emulatedNoSession:
		result, err = passedUnknown, errNoSession
	case string(answer) == emulatedFormat:
		result, err = passedTaken, errFormat
	default:
		err = errBusy
	}
	s.meter.passedOn.WithLabelValues(result).Inc()
	return err
}

// fromNode answers what another node passes on.
func (s *Service) fromNode(ctx context.Context, message []byte) ([]byte, error) {
	m, err := decodePassedOn(message)
	if err != nil {
		return nil, err
	}
	switch err := s.emulate(ctx, m); {
	case err == nil:
		return []byte(emulatedTaken), nil
	case errors.Is(err, errNoSession):
		return []byte(emulatedNoSession), nil
	case errors.Is(err, errFormat):
		return []byte(emulatedFormat), nil
	default:
		return []byte(emulatedBusy), nil
	}
}

func decodePassedOn(message []byte) (emulated, error) {
	var m emulated
	for i, b := range message {
		if b != '\n' {
			continue
		}
		if err := json.Unmarshal(message[:i], &m); err != nil {
			return m, fmt.Errorf("passed on: %w", err)
		}
		m.data = message[i+1:]
		return m, nil
	}
	return m, errors.New("passed on: no head")
}

// held is a body in memory.
type held struct {
	data []byte
	size int64 // what is counted for it
}

// bodies bounds the bodies of requests that are in memory, in bytes. Safe for concurrent use.
type bodies struct {
	bytes atomic.Int64
	most  int64
}

func (b *bodies) reserve(size int64) bool {
	if b.bytes.Add(size) <= b.most {
		return true
	}
	b.bytes.Add(-size)
	return false
}

func (b *bodies) release(h held) { b.bytes.Add(-h.size) }

// strangersMost bounds the addresses that are remembered for having asked for sessions that are not there. When there are more all are forgotten.
const strangersMost = 4096

// strangers bounds how often an address may ask for a session that this node doesn't hold: each costs a message to another node, and who
// guesses sessions asks for nothing else. What another node takes is given back. Safe for concurrent use.
type strangers struct {
	mu sync.Mutex
	by map[string]*bucket
}

func (s *strangers) take(address string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.by[address]
	if b == nil {
		if s.by == nil || len(s.by) >= strangersMost {
			s.by = map[string]*bucket{}
		}
		fresh := newBucket(limit.StrangersPerSecond, limit.StrangersBurst)
		b = &fresh
		s.by[address] = b
	}
	return b.take(1, now)
}

func (s *strangers) giveBack(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.by[address]; b != nil {
		b.tokens = min(b.burst, b.tokens+1)
	}
}
