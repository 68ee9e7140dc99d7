package bus

// Revocations: tokens that were issued before a moment and are refused from then on. They go through a channel with history, which every
// node follows by position, so that one that was away, or has just started, learns what it missed. A flushed or promoted Redis is told
// again what the nodes remember.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"tideline/shared/limit"
)

const (
	// RevocationTTL is the longest that a revocation is remembered: no shorter than the longest life of a token that nodes accept.
	RevocationTTL = 24 * time.Hour
	// revocationsKept is how many the channel keeps: a node that starts reads them all.
	revocationsKept = 10_000
	// subjectBytes is the longest user, session or token id of a revocation.
	subjectBytes = 512
)

// Revocation refuses the tokens of one user, one session, or one token alone: exactly one of the three is set.
type Revocation struct {
	User    string `json:"user,omitempty"`
	Session string `json:"session,omitempty"`
	Token   string `json:"token,omitempty"` // its jti
	// Before: tokens issued at or before it are refused. Zero means now.
	Before time.Time `json:"before"`
	// Until is when the last such token has expired. Zero means limit.TokenTTL and limit.TokenJitter after Before; at most RevocationTTL
	// after it.
	Until time.Time `json:"until"`
}

// subject is the map key of who is revoked.
func (r Revocation) subject() string {
	switch {
	case r.User != "":
		return "u" + r.User
	case r.Session != "":
		return "s" + r.Session
	default:
		return "t" + r.Token
	}
}

func (r Revocation) check() error {
	set := 0
	for _, s := range [...]string{r.User, r.Session, r.Token} {
		if s != "" {
			set++
		}
		if len(s) > subjectBytes {
			return fmt.Errorf("%w: revocation: subject of %d bytes, at most %d", ErrTooLarge, len(s), subjectBytes)
		}
	}
	switch {
	case set != 1:
		return fmt.Errorf("%w: revocation: want one of user, session and token", ErrInvalid)
	case r.Until.Sub(r.Before) > RevocationTTL:
		return fmt.Errorf("%w: revocation lasts %v, at most %v", ErrInvalid, r.Until.Sub(r.Before), RevocationTTL)
	}
	return nil
}

// Revoke has every node refuse the tokens and hear of it. It has been written when Revoke returns; connected nodes know within
// milliseconds, others when they are back.
func (b *Bus) Revoke(ctx context.Context, r Revocation) error {
	if r.Before.IsZero() {
		r.Before = b.now()
	}
	if r.Until.IsZero() {
		r.Until = r.Before.Add(limit.TokenTTL + limit.TokenJitter)
	}
	r.Before, r.Until = r.Before.UTC(), r.Until.UTC()
	if err := r.check(); err != nil {
		return err
	}
	return b.publishRevocation(ctx, r, randomHex(16))
}

func (b *Bus) publishRevocation(ctx context.Context, r Revocation, id string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	_, err = b.Publish(ctx, Publication{
		Channel: revocationChannel, Data: data, ID: id,
		History: History{Size: revocationsKept, TTL: RevocationTTL},
	})
	return err
}

// revocations is what a Control knows of them.
type revocations struct {
	// pos is how far the channel has been read; owned by followRevocations.
	pos Position

	mu      sync.RWMutex
	bySubj  map[string]knownRevocation
	checked time.Time // when the channel was last read to its end
}

type knownRevocation struct {
	Revocation
	id string // of the publication
}

// Refuses reports whether a token of that user, session and id, issued then, is revoked. It never asks Redis.
func (c *Control) Refuses(user, session, id string, issued time.Time) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, subject := range [...]string{"u" + user, "s" + session, "t" + id} {
		if r, ok := c.bySubj[subject]; ok && !issued.After(r.Before) {
			return true
		}
	}
	return false
}

// Checked is when revocations were last compared with Redis; zero before the first time: until then none is known.
func (c *Control) Checked() time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.checked
}

// followRevocations reads the channel whenever something was heard on it, and at intervals, until ctx ends.
func (c *Control) followRevocations(ctx context.Context) {
	for {
		pause := c.o.CheckEvery - rand.N(c.o.CheckEvery/5+1)
		if err := c.readRevocations(ctx); err != nil && ctx.Err() == nil {
			c.bus.log.Warn("revocations not read", "node", c.lease.o.Node, "error", err)
			pause = jitter(retryMax)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-c.catchUp:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// readRevocations reads on from the position, or everything where the position means nothing any more; then Redis is told again what it
// has lost.
func (c *Control) readRevocations(ctx context.Context) error {
	fromStart := c.pos.Epoch == ""
	found, err := c.readPages(ctx)
	if errors.Is(err, ErrUnrecoverable) {
		fromStart, c.pos = true, Position{}
		found, err = c.readPages(ctx)
	}
	if err == nil && fromStart {
		err = c.tellAgain(ctx, found)
	}
	if err != nil {
		if fromStart {
			c.pos = Position{} // all of it again
		}
		return err
	}
	now := c.bus.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked = time.Now()
	for subject, r := range c.bySubj {
		if r.Until.Before(now) {
			delete(c.bySubj, subject)
		}
	}
	return nil
}

// readPages reads to the end of the channel and answers the ids that it found.
func (c *Control) readPages(ctx context.Context) (found map[string]bool, err error) {
	found = make(map[string]bool)
	for {
		page := Page{Limit: -1}
		if c.pos.Epoch != "" {
			page.Since = &c.pos
		}
		pubs, top, err := c.bus.History(ctx, revocationChannel, page)
		if err != nil {
			return found, err
		}
		for _, p := range pubs {
			found[p.ID] = true
			c.learn(p)
		}
		if len(pubs) == 0 || pubs[len(pubs)-1].Offset >= top.Offset {
			c.pos = top
			return found, nil
		}
		c.pos = Position{Epoch: top.Epoch, Offset: pubs[len(pubs)-1].Offset}
	}
}

// learn takes one revocation in and tells the node, unless it is known, weaker than a known one, or over.
func (c *Control) learn(p Publication) {
	var r Revocation
	if err := json.Unmarshal(p.Data, &r); err != nil || r.check() != nil {
		c.bus.log.Warn("revocation not understood", "id", p.ID, "error", err)
		return
	}
	if r.Until.Before(c.bus.now()) {
		return
	}
	c.mu.Lock()
	old, known := c.bySubj[r.subject()]
	fresh := !known || old.Before.Before(r.Before)
	if fresh {
		if c.bySubj == nil {
			c.bySubj = make(map[string]knownRevocation)
		}
		if r.Until.Before(old.Until) {
			r.Until = old.Until
		}
		c.bySubj[r.subject()] = knownRevocation{r, p.ID}
	}
	c.mu.Unlock()
	if fresh {
		c.o.Revoked(r)
	}
}

// tellAgain publishes what this node knows and the channel has lost, under the ids that it had: however many nodes do so, each
// revocation is in the channel once.
func (c *Control) tellAgain(ctx context.Context, found map[string]bool) error {
	c.mu.RLock()
	var lost []knownRevocation
	for _, r := range c.bySubj {
		if !found[r.id] && r.Until.After(c.bus.now()) {
			lost = append(lost, r)
		}
	}
	c.mu.RUnlock()
	for _, r := range lost {
		if err := c.bus.publishRevocation(ctx, r.Revocation, r.id); err != nil {
			return err
		}
	}
	return nil
}
