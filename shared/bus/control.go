package bus

// Messages from one to all nodes: surveys and orders, which ask every live node and gather the answers, and revocations
// (control_revoke.go). Anything with a Bus may ask; a node answers through its Control. A node that is slow or deaf delays a survey
// until its deadline and is named as missing. What is for one node alone: control_direct.go.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"tideline/shared/limit"
)

// Internal channels. No namespace can be called so, which keeps clients away.
const (
	controlChannel    = "$control"
	revocationChannel = "$revocations"
)

// fleetReplies starts the key of a survey's answers, in the registry's slot:
//
//	tl:<stage>:{nodes}:r:<survey>  list of JSON answers; lives for replyTTL
const fleetReplies = "r:"

const (
	// SurveyTimeout bounds a survey whose context has no earlier deadline.
	SurveyTimeout = limit.CommandBudget
	// AnswerBytes is the longest answer of one node.
	AnswerBytes = 1 << 20

	methodBytes    = 64
	replyTTL       = 30 * time.Second
	replyPoll      = 20 * time.Millisecond
	controlInbox   = 64 // requests that wait; what comes past them is dropped, and its asker sees a missing answer
	controlWorkers = 4
	controlMemory  = 1024 // ids of requests that are recognised when they are heard twice
)

// Answer is what one node said to a survey.
type Answer struct {
	Node string `json:"node"` // NODE_ID
	Boot string `json:"boot"`
	Data []byte `json:"data,omitempty"`
	// Error is what the node's handler failed with, or why there is no Data.
	Error string `json:"error,omitempty"`
}

// request is a survey on its way.
type request struct {
	ID     string `json:"id"`
	Method string `json:"method"`
	Params []byte `json:"params,omitempty"`
	// Millis is how long the asker waits from the publication on.
	Millis int64 `json:"ms"`
}

// Survey asks every live node and gathers answers until all are in, the context ends, or SurveyTimeout. Nodes that are alive and
// did not answer are in missing, by boot. An error says that nobody could be asked.
func (b *Bus) Survey(ctx context.Context, method string, params []byte) (answers map[string]Answer, missing []NodeInfo, err error) {
	if method == "" || len(method) > methodBytes {
		return nil, nil, fmt.Errorf("%w: survey: method of %d bytes: want 1 to %d", ErrInvalid, len(method), methodBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, SurveyTimeout)
	defer cancel()
	nodes, err := b.Nodes(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("survey %s: %w", method, err)
	}
	deadline, _ := ctx.Deadline()
	req := request{ID: randomHex(16), Method: method, Params: params, Millis: time.Until(deadline).Milliseconds()}
	data, err := json.Marshal(req)
	if err != nil {
		return nil, nil, fmt.Errorf("survey %s: %w", method, err)
	}
	if _, err := b.Publish(ctx, Publication{Channel: controlChannel, Data: data}); err != nil {
		return nil, nil, fmt.Errorf("survey %s: %w", method, err)
	}
	answers = make(map[string]Answer, len(nodes))
	key := b.fleetKey(fleetReplies + req.ID)
	waiting := func() bool {
		return slices.ContainsFunc(nodes, func(n NodeInfo) bool { _, ok := answers[n.Boot]; return !ok })
	}
	for waiting() && sleep(ctx, replyPoll) {
		replies, err := b.client.LPopCount(ctx, key, 100).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			continue // asked again until the deadline; whoever can't be heard is missing
		}
		for _, reply := range replies {
			var a Answer
			if json.Unmarshal([]byte(reply), &a) == nil {
				answers[a.Boot] = a
			}
		}
	}
	for _, n := range nodes {
		if _, ok := answers[n.Boot]; !ok {
			missing = append(missing, n)
		}
	}
	return answers, missing, nil
}

// ControlOptions of NewControl. Its functions may be called concurrently.
type ControlOptions struct {
	// Answer does what a survey asks and says what came of it. Its context ends when the asker stops waiting.
	Answer func(ctx context.Context, method string, params []byte) ([]byte, error)
	// Revoked hears every revocation once, when this node learns of it: time to disconnect who holds such a token. It must not block.
	Revoked func(Revocation)
	// Asked answers a direct message of another node (Control.Ask). Its context ends when the asker stops waiting. At most directAtOnce
	// run at a time; what comes past them is dropped, and its asker waits in vain.
	Asked func(ctx context.Context, data []byte) ([]byte, error)
	// CheckEvery is 0 but in tests: how often revocations are compared with Redis, limit.PositionCheckEvery.
	CheckEvery time.Duration
}

// Control is a node's ear for surveys and revocations, with subscriber connections of its own. Its methods are safe for concurrent use.
type Control struct {
	bus   *Bus
	lease *Lease
	o     ControlOptions

	inbox   chan heardRequest
	catchUp chan struct{}
	dropped atomic.Uint64
	direct  *directs

	seen []string // ring of request ids; owned by Heard, which is called for one channel at a time
	next int

	revocations
}

type heardRequest struct {
	request
	until time.Time
}

// NewControl makes a Control that answers under the lease's generation; nothing happens before Run.
func (b *Bus) NewControl(lease *Lease, o ControlOptions) *Control {
	o.CheckEvery = cmp.Or(o.CheckEvery, limit.PositionCheckEvery)
	if o.Answer == nil {
		o.Answer = func(_ context.Context, method string, _ []byte) ([]byte, error) {
			return nil, fmt.Errorf("no such method: %s", method)
		}
	}
	if o.Revoked == nil {
		o.Revoked = func(Revocation) {}
	}
	return &Control{
		bus: b, lease: lease, o: o, direct: newDirects(o.Asked),
		inbox: make(chan heardRequest, controlInbox), catchUp: make(chan struct{}, 1),
		seen: make([]string, controlMemory),
	}
}

// Run listens and answers until ctx ends, and returns after its goroutines have.
func (c *Control) Run(ctx context.Context) error {
	s := c.bus.NewSubscriber(controlEar{c})
	s.Subscribe(controlChannel)
	s.Subscribe(revocationChannel)
	s.Subscribe(directChannel + c.direct.address)
	c.direct.mu.Lock()
	c.direct.running = ctx
	c.direct.mu.Unlock()
	var loops sync.WaitGroup
	for range controlWorkers {
		loops.Go(func() { c.work(ctx) })
	}
	loops.Go(func() { c.followRevocations(ctx) })
	err := s.Run(ctx)
	loops.Wait()
	c.direct.working.Wait()
	return err
}

// Dropped counts requests and direct messages that were not answered because too many waited.
func (c *Control) Dropped() uint64 { return c.dropped.Load() + c.direct.dropped.Load() }

// controlEar is the Handler of a Control's Subscriber.
type controlEar struct{ c *Control }

// Heard takes a request into the inbox, or notes that there is a revocation to read.
func (e controlEar) Heard(channel string, m Message) {
	switch {
	case m.Kind != KindPublication:
	case channel == revocationChannel:
		wake(e.c.catchUp)
	case channel == controlChannel:
		e.c.take(m.Publication.Data)
	default:
		e.c.heardDirect(m.Publication.Data)
	}
}

// Confirmed has revocations compared with Redis. A survey that was missed has a deadline, so nobody waits for it any more.
func (e controlEar) Confirmed(channel string) {
	switch channel {
	case controlChannel:
	case revocationChannel:
		wake(e.c.catchUp)
	default:
		e.c.direct.listening(true)
	}
}

// Interrupted has direct messages wait; for the others nothing needs to be done: Confirmed follows.
func (e controlEar) Interrupted(channel string) {
	if channel != controlChannel && channel != revocationChannel {
		e.c.direct.listening(false)
	}
}

func (c *Control) take(data []byte) {
	var req request
	if err := json.Unmarshal(data, &req); err != nil || req.ID == "" {
		c.bus.log.Warn("control request not understood", "error", err)
		return
	}
	if slices.Contains(c.seen, req.ID) {
		return // while subscriber connections are rotated, both hear it
	}
	c.seen[c.next] = req.ID
	c.next = (c.next + 1) % len(c.seen)
	wait := min(time.Duration(req.Millis)*time.Millisecond, SurveyTimeout)
	select {
	case c.inbox <- heardRequest{req, time.Now().Add(wait)}:
	default:
		c.dropped.Add(1)
	}
}

// work answers requests until ctx ends.
func (c *Control) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case req := <-c.inbox:
			if err := c.answer(ctx, req); err != nil && ctx.Err() == nil {
				c.bus.log.Warn("control request not answered", "method", req.Method, "error", err)
			}
		}
	}
}

// answerScript appends an answer. KEYS: the survey's answers. ARGV: answer, TTL in ms. Repeated after a lost reply, the asker takes the
// same answer twice, as one.
var answerScript = newScript("answer", `
redis.call('RPUSH', KEYS[1], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`)

func (c *Control) answer(ctx context.Context, req heardRequest) error {
	ctx, cancel := context.WithDeadline(ctx, req.until)
	defer cancel()
	a := Answer{Node: c.lease.o.Node, Boot: c.lease.Boot()}
	data, err := c.o.Answer(ctx, req.Method, req.Params)
	switch {
	case err != nil:
		a.Error = err.Error()
	case len(data) > AnswerBytes:
		a.Error = fmt.Sprintf("answer of %d bytes, at most %d", len(data), AnswerBytes)
	default:
		a.Data = data
	}
	reply, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = c.bus.run(ctx, answerScript, []string{c.bus.fleetKey(fleetReplies + req.ID)}, reply, replyTTL.Milliseconds())
	return err
}
