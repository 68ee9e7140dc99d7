package faults

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/fleet"
	"tideline/test/redistest"
)

// answerSlack is what a reply may take beyond the budget of its command, on a machine that does much else.
const answerSlack = 500 * time.Millisecond

// Redis is away, silent or gone: sockets stay, connecting works, what needs Redis answers the temporary error 100 in time, the load
// balancer keeps the nodes; afterwards the promises hold for what was published meanwhile.
func TestRedisAwayDegradesAndDoesNotBreak(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		away, again func(*redistest.Server)
		told        bool
	}{
		{"silent", (*redistest.Server).Pause, (*redistest.Server).Resume, false},
		{"gone", (*redistest.Server).Kill, (*redistest.Server).Restart, true}, // it comes back empty
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := redistest.Start(t)
			s := newScene(t, r.URL())
			n := s.nodes[0]
			asking := newClient(t, "asking", at(n), "chat:side").start(t)
			awaitSubscribed(t, subscribers([]*client{asking}))
			stop := s.load(t)
			s.progress(t, 20)
			c.away(r)
			degraded(t, n)
			pauses := fleet.WatchPauses(t)
			commandsWithoutRedis(t, asking, pauses)
			late := newClient(t, "late", at(n), s.publishers[0].channel).start(t)
			within(t, patience, "a newcomer connects", func() error {
				return check(late.connects.Load() == 1, "%d connects", late.connects.Load())
			})
			within(t, patience, "its subscribe is answered by a temporary error", func() error {
				return check(late.subErrors.Load() > 0, "no error yet")
			})
			pass(t, 6*time.Second) // past every command's budget, the probe's timeout and the SDKs' patience
			degraded(t, n)
			c.again(r)
			s.progress(t, 20)
			awaitSubscribed(t, subscribers([]*client{late}))
			s.verdict(t, stop).wantTold(t, c.told)
			verdict(t, subscribers([]*client{late}), s.publishers...)
			within(t, time.Minute, "the node says that all is well", func() error { return ready(n, "ready") })
			for _, c := range append(s.clients, asking, late) {
				if c.disconnects.Load() > 0 {
					t.Errorf("%s lost its connection", c.name)
				}
			}
		})
	}
}

// commandsWithoutRedis asks for everything that needs Redis, all at the same time, as an SDK does.
func commandsWithoutRedis(t *testing.T, c *client, pauses *fleet.Pauses) {
	t.Helper()
	start := time.Now()
	var asking sync.WaitGroup
	var mu sync.Mutex
	longest := time.Duration(0)
	for _, command := range []string{
		`"subscribe":{"channel":"chat:new"}`,
		`"publish":{"channel":"chat:side","data":{"n":1}}`,
		`"rpc":{"method":"publish","data":{"channel":"chat:side","data":{"n":2},"id":"a"}}`,
		`"presence":{"channel":"chat:side"}`,
		`"presence_stats":{"channel":"chat:side"}`,
		`"history":{"channel":"chat:side","limit":10}`,
	} {
		asking.Go(func() {
			began := time.Now()
			_, err := c.call(command)
			took := time.Since(began)
			var refused *wireError
			if !errors.As(err, &refused) || refused.Code != 100 || !refused.Temporary {
				t.Errorf("%s answered %v, want the temporary error 100", command, err)
			}
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, took)
		})
	}
	asking.Wait()
	if pause := pauses.Since(start); longest > limit.CommandBudget+answerSlack+pause {
		t.Errorf("the slowest answer took %v, promised are %v; the machine paused for %v", longest, limit.CommandBudget, pause)
	}
	// What needs no Redis works as ever.
	if _, err := c.call(`"rpc":{"method":"time"}`); err != nil {
		t.Errorf("rpc time: %v", err)
	}
	if _, err := c.call(`"unsubscribe":{"channel":"chat:elsewhere"}`); err != nil {
		t.Errorf("unsubscribe: %v", err)
	}
	fmt.Printf("%s: without Redis 6 commands answered error 100, the slowest after %v\n", t.Name(), longest.Round(time.Millisecond))
}

// degraded checks what the load balancer and people are told.
func degraded(t *testing.T, n *node) {
	t.Helper()
	within(t, patience, "the node says that it is degraded", func() error { return ready(n, "degraded") })
}

// ready compares the status of /readyz, which is 200 whenever the node is neither starting nor draining.
func ready(n *node, status string) error {
	res, err := fleet.Client(nil).Get(n.private + "/readyz")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	return check(res.StatusCode == http.StatusOK && strings.Contains(string(body), `"status":"`+status+`"`), "/readyz answers %d %s", res.StatusCode, body)
}
