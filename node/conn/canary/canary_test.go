package canary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"tideline/node/conn"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/test/leak"
	"tideline/test/redistest"
)

func TestMain(m *testing.M) { leak.Main(m) }

// The tests' own numbers keep the proportions of package limit, fifty times faster; Redis's own liveness probe does not.
const (
	fast     = 50
	interval = limit.CanaryInterval / fast
	// missable is for tests that count what is missed. In the others canaries may take as long as the tests' patience: one that is given up
	// leaves a hole in the count.
	missable = limit.CanaryWait / fast
	patience = 30 * time.Second
)

type node struct {
	*Canary
	id    string
	bus   *bus.Bus
	redis *redistest.Proxy
	stop  func() // of the canary alone, as a drain does
}

// startNode starts sockets and a canary over a proxy of their own to Redis.
func startNode(t *testing.T, redis *redistest.Server, id string, lock bus.LockOptions, wait time.Duration) *node {
	t.Helper()
	n := &node{id: id, redis: redistest.StartProxy(t, redis.Addr())}
	log := slog.New(slog.DiscardHandler)
	var err error
	if n.bus, err = bus.Open(t.Context(), bus.Options{URL: n.redis.URL(), Stage: "test", Log: log}); err != nil {
		t.Fatal(err)
	}
	verifier, err := token.NewSecrets([]string{strings.Repeat("x", 32)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := conn.New(conn.Options{NodeID: id, Bus: n.bus, Table: channel.Shipped(), Verifier: verifier, CanaryToken: "one boot of " + id, Log: log,
		AnnounceWindow: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	sockets.Register(mux)
	server := httptest.NewServer(mux)
	n.Canary = New(Options{Bus: n.bus, History: bus.History{Size: 10_000, TTL: time.Hour}, NodeID: id, Token: "one boot of " + id, Log: log,
		URL: "ws" + strings.TrimPrefix(server.URL, "http") + conn.Path, Interval: interval, Wait: wait, Retry: limit.CanaryRetry / fast,
		Lock: lock})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sockets.Run(ctx) }()
	singing, quiet := context.WithCancel(context.Background())
	silent := make(chan struct{})
	go func() { defer close(silent); n.Run(singing) }()
	n.stop = func() { quiet(); <-silent }
	t.Cleanup(func() {
		n.redis.Resume()
		n.stop()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", id, err)
		}
		server.Close()
		if err := n.bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

var (
	// fastLock expires as much sooner as canaries come. A machine that stands still for a moment may move it to another node at any time.
	fastLock = bus.LockOptions{TTL: limit.LockTTL / fast, Renew: limit.LockRenew / fast}
	// longLock outlives a test's patience, unless it is given back.
	longLock = bus.LockOptions{TTL: 3 * patience, Renew: patience}
)

func startFleet(t *testing.T, lock bus.LockOptions, wait time.Duration) (*redistest.Server, []*node) {
	t.Helper()
	redis := redistest.Start(t)
	var nodes []*node
	for i := range 3 {
		nodes = append(nodes, startNode(t, redis, fmt.Sprint("n", i), lock, wait))
	}
	hear(t, nodes, 3)
	return redis, nodes
}

func value(t *testing.T, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
}

func await(t *testing.T, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// more waits until every node's counter has grown by n.
func more(t *testing.T, what string, nodes []*node, n float64, counter func(*node) prometheus.Metric) {
	t.Helper()
	before := map[*node]float64{}
	for _, n := range nodes {
		before[n] = value(t, counter(n))
	}
	await(t, what, func() error {
		for _, node := range nodes {
			if got := value(t, counter(node)) - before[node]; got < n {
				return fmt.Errorf("%s: %v of %v", node.id, got, n)
			}
		}
		return nil
	})
}

func hear(t *testing.T, nodes []*node, n float64) {
	t.Helper()
	more(t, "canaries are heard", nodes, n, func(n *node) prometheus.Metric { return n.heard })
}

func miss(t *testing.T, nodes []*node, n float64) {
	t.Helper()
	more(t, "canaries are missed", nodes, n, func(n *node) prometheus.Metric { return n.missed })
}

// last reads what was published last.
func last(t *testing.T, b *bus.Bus) (m message) {
	t.Helper()
	pubs, _, err := b.History(t.Context(), channel.Canary, bus.Page{Limit: 1, Reverse: true})
	if err != nil || len(pubs) != 1 {
		t.Fatalf("%d publications, %v", len(pubs), err)
	}
	if err := json.Unmarshal(pubs[0].Data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// leader finds who publishes, and the others.
func leader(t *testing.T, nodes []*node) (one *node, others []*node) {
	t.Helper()
	name := last(t, nodes[0].bus).Node
	for _, n := range nodes {
		if n.id == name {
			one = n
		} else {
			others = append(others, n)
		}
	}
	if one == nil {
		t.Fatalf("%s publishes, and is not of the fleet", name)
	}
	return one, others
}

// consecutive checks that canaries count one by one, whoever published them.
func consecutive(t *testing.T, b *bus.Bus) {
	t.Helper()
	pubs, _, err := b.History(t.Context(), channel.Canary, bus.Page{Limit: -1})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range pubs {
		var m message
		if err := json.Unmarshal(p.Data, &m); err != nil || m.Type != "canary" || m.N != uint64(i+1) || m.Time == 0 {
			t.Errorf("canary %d is %s, %v", i+1, p.Data, err)
		}
	}
}

func TestOneNodePublishesAndAllHear(t *testing.T) {
	_, nodes := startFleet(t, longLock, patience)
	one, _ := leader(t, nodes)
	hear(t, nodes, 5)
	if again, _ := leader(t, nodes); again != one {
		t.Errorf("%s and then %s published", one.id, again.id)
	}
	consecutive(t, nodes[0].bus)
	for _, n := range nodes {
		n.stop()
		if heard, timed := value(t, n.heard), value(t, n.latency); timed != heard {
			t.Errorf("%s heard %v and timed %v", n.id, heard, timed)
		}
	}
}

// Cut off from Redis without a word, as a node that died is: its lock expires.
func TestWhenThePublisherDiesAnotherTakesOver(t *testing.T) {
	_, nodes := startFleet(t, fastLock, patience)
	one, others := leader(t, nodes)
	one.redis.Pause()
	await(t, "another publishes", func() error {
		if m := last(t, others[0].bus); m.Node == one.id {
			return errors.New("the old one's is the last")
		}
		return nil
	})
	hear(t, others, 3)
	consecutive(t, others[0].bus)
	one.redis.Resume()
	hear(t, nodes, 3)
}

func TestADrainingNodeHandsOverAtOnce(t *testing.T) {
	_, nodes := startFleet(t, longLock, patience)
	one, others := leader(t, nodes)
	one.stop()
	before := value(t, one.missed)
	hear(t, others, 3) // long before the lock would have expired
	consecutive(t, others[0].bus)
	if got := value(t, one.missed); got != before {
		t.Errorf("a draining node missed %v", got-before)
	}
}

// Its connections to Redis fall silent, the subscription among them; commands come through on new ones.
func TestADeafNodeMisses(t *testing.T) {
	_, nodes := startFleet(t, longLock, missable)
	_, others := leader(t, nodes)
	deaf := others[:1]
	deaf[0].redis.Stall()
	miss(t, deaf, 3)
	hear(t, deaf, 3) // the subscription's probe has noticed
}

func TestRedisAwayIsMissedByAllAndForgotten(t *testing.T) {
	redis, nodes := startFleet(t, fastLock, missable)
	redis.Stop()
	miss(t, nodes, 3)
	redis.Restart()
	hear(t, nodes, 3)
	await(t, "who hears does not call itself deaf", func() error { // a slow machine may miss one again
		for _, n := range nodes {
			n.mu.Lock()
			silent := n.silent
			n.mu.Unlock()
			if silent {
				return errors.New(n.id)
			}
		}
		return nil
	})
}

// Nobody answers the node's own door: what browsers would meet.
func TestADoorThatDoesNotOpenIsAMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Log: slog.New(slog.DiscardHandler)})
		c.due = time.Now().Add(limit.CanaryInterval + limit.CanaryWait)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); c.watch(ctx) }()
		want := func(missed float64) {
			t.Helper()
			synctest.Wait()
			if got := value(t, c.missed); got != missed {
				t.Errorf("%v missed, want %v", got, missed)
			}
		}
		time.Sleep(limit.CanaryInterval + limit.CanaryWait - 1)
		want(0)
		time.Sleep(time.Nanosecond)
		want(1)
		time.Sleep(limit.CanaryInterval)
		want(2)
		c.hear(time.Now(), time.Now())
		time.Sleep(limit.CanaryInterval + limit.CanaryWait - 1)
		want(2)
		c.hear(time.Now(), time.Now()) // in time, just
		time.Sleep(limit.CanaryInterval + limit.CanaryWait - 1)
		want(2)
		time.Sleep(time.Nanosecond)
		want(3)
		cancel()
		<-ended
	})
}

func TestDialsTheLoopbackOfAnUnspecifiedAddress(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0", "[::1]:0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		c, err := dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Errorf("%s: %v", listen, err)
		} else {
			c.Close()
		}
		l.Close()
		if c, err := dial(t.Context(), "tcp", l.Addr().String()); err == nil {
			c.Close()
			t.Errorf("%s: dialled what is closed", listen)
		}
	}
}
