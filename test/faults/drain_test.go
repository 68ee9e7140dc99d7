package faults

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"tideline/local/balancer"
	"tideline/test/fleet"
	"tideline/test/redistest"
)

// healthEvery is the balancer's here; limit.HealthInterval divided by 20, as the drain's times are.
const healthEvery = 250 * time.Millisecond

// seat is an address behind the balancer, which a node takes when it is started. Until then it is taken by listeners that nobody answers.
type seat struct {
	public, private net.Listener
}

func newSeat(t *testing.T) *seat {
	t.Helper()
	s := &seat{}
	for _, l := range []*net.Listener{&s.public, &s.private} {
		var err error
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*l).Close() })
	}
	return s
}

// start starts a node on the seat.
func (s *seat) start(t *testing.T, id, redis string, env ...string) *node {
	t.Helper()
	env = append([]string{"PORT=" + s.public.Addr().String(), "PRIVATE_PORT=" + s.private.Addr().String(), "TRUSTED_HOPS=2"}, env...)
	_ = s.public.Close()
	_ = s.private.Close()
	return startNode(t, id, redis, env...)
}

// balance puts the stand-in for the load balancer in front of seats and answers the address for clients.
func balance(t *testing.T, seats ...*seat) (socket string) {
	t.Helper()
	var targets []balancer.Target
	for i, s := range seats {
		targets = append(targets, balancer.Target{Name: fmt.Sprint("target-", i), URL: &url.URL{Scheme: "http", Host: s.public.Addr().String()},
			Health: &url.URL{Scheme: "http", Host: s.private.Addr().String(), Path: "/readyz"}})
	}
	b, err := balancer.New(balancer.Options{Targets: targets, HealthEvery: healthEvery, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{Handler: b, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	running.Go(func() { _ = server.Serve(l) }) // ends with Close
	t.Cleanup(func() {
		cancel()
		_ = server.Close()
		running.Wait()
	})
	return "ws://" + l.Addr().String() + "/connection/websocket"
}

// arrivals are the moments at which clients have connected.
type arrivals struct {
	mu sync.Mutex
	at []time.Time
}

func (a *arrivals) note(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = append(a.at, at)
}

// spread counts the arrivals from a moment on in buckets of a width and answers all of them, the fullest bucket, and each.
func (a *arrivals) spread(from time.Time, width time.Duration) (total, most int, buckets []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.at {
		if at.Before(from) {
			continue
		}
		total++
		b := int(at.Sub(from) / width)
		for len(buckets) <= b {
			buckets = append(buckets, 0)
		}
		buckets[b]++
		most = max(most, buckets[b])
	}
	return total, most, buckets
}

// everywhere starts n clients behind a socket address, each in one of the rooms, and a few of the SDK, and waits for all.
func everywhere(t *testing.T, socket string, n int, rooms []string) (clients []*client, all []subscriber, came *arrivals) {
	t.Helper()
	came = &arrivals{}
	for i := range n {
		c := newClient(t, fmt.Sprint("c", i), func() string { return socket }, rooms[i%len(rooms)])
		c.onConnect = came.note
		clients = append(clients, c.start(t))
	}
	all = subscribers(clients)
	for i := range 6 {
		all = append(all, startSDK(t, fmt.Sprint("sdk", i), socket, rooms[i%len(rooms)]))
	}
	awaitSubscribed(t, all)
	return clients, all, came
}

// A deploy: three nodes are replaced one after the other under 3,000 clients and 100 publications a second. Nothing is lost, nothing comes
// twice, and the reconnects of each drain are spread over its window.
func TestRollingReplacementOfThreeNodes(t *testing.T) {
	// The real times are 20 s and 90 s, with buckets of 5 s; here both are scaled, and a bucket is a twelfth of the window.
	grace, window := pick(time.Second, 20*time.Second), pick(12*time.Second, 90*time.Second)
	bucket := pick(window/12, 5*time.Second)
	const rooms = 30
	r := redistest.Start(t)
	drain := []string{"DRAIN_GRACE=" + grace.String(), "DRAIN_WINDOW=" + window.String()}
	var seats []*seat
	for range 6 {
		seats = append(seats, newSeat(t))
	}
	var nodes []*node
	for i := range 3 {
		nodes = append(nodes, seats[i].start(t, fmt.Sprint("old-", i), r.URL(), drain...))
	}
	socket := balance(t, seats...)
	b := openBus(t, r.URL())
	var names []string
	var ps []*publisher
	for i := range rooms {
		names = append(names, fmt.Sprint("chat:room", i))
		ps = append(ps, newPublisher(t, b, names[i]))
	}
	clients, all, came := everywhere(t, socket, crowd(3000), names)
	for i, n := range nodes {
		if held := n.metric(t, "websocket_connections_active"); held < float64(len(clients))/4 {
			t.Fatalf("node %d holds %.0f of %d clients: they are not spread", i, held, len(clients))
		}
	}
	stop := load(t, rooms*time.Second/100, ps...)
	pauses := fleet.WatchPauses(t)
	for i, old := range nodes {
		seats[i+3].start(t, fmt.Sprint("new-", i), r.URL(), drain...)
		held := old.metric(t, "websocket_connections_active")
		began := time.Now()
		old.Signal(syscall.SIGTERM)
		if code := old.waitFor(t, grace+window+time.Minute); code != 0 {
			t.Errorf("%s ended with %d", old.id, code)
		}
		awaitSubscribed(t, all)
		total, most, buckets := came.spread(began.Add(grace), bucket)
		even := held * bucket.Seconds() / window.Seconds()
		fmt.Printf("%s: %s closed %.0f clients in %v; %d reconnects, the fullest bucket of %v has %d, an even spread %.0f\n",
			t.Name(), old.id, held, time.Since(began).Round(100*time.Millisecond), total, bucket, most, even)
		if pause := pauses.Since(began); pause > bucket/4 {
			// The machine stood still: what would have come in some buckets came in the next. All of them together say the same.
			together := 2 + int(pause/bucket)
			most, even = fullest(buckets, together), float64(together)*even
			fmt.Printf("%s: the machine paused for %v: %d buckets are taken together, the fullest have %d\n", t.Name(), pause, together, most)
		}
		if float64(most) > 2*even {
			t.Errorf("%s: %d reconnects in a bucket of %v, an even spread has %.0f: %v", old.id, most, bucket, even, buckets)
		}
		if float64(total) < held-6 { // the SDK's clients are not among the arrivals
			t.Errorf("%s: %d reconnects of %.0f", old.id, total, held)
		}
	}
	stop()
	c := verdict(t, all, ps...)
	c.wantTold(t, false)
	other := 0
	for _, c := range clients {
		if c.disconnects.Load() != int64(c.said(3001)) {
			other++
		}
	}
	if other > 0 {
		t.Errorf("%d clients lost a connection by something else than 3001", other)
	}
}

// A second SIGTERM ends a drain at once, clients or not.
func TestSecondSignalEndsTheDrainAtOnce(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	n := startNode(t, "n", r.URL(), "DRAIN_GRACE=0s", "DRAIN_WINDOW=10m")
	var cs []*client
	for i := range 20 {
		cs = append(cs, newClient(t, fmt.Sprint("c", i), at(n), "chat:a").start(t))
	}
	awaitSubscribed(t, subscribers(cs))
	n.Signal(syscall.SIGTERM)
	n.Await(`"node draining"`)
	n.Signal(syscall.SIGTERM)
	if code := n.waitFor(t, time.Minute); code == 0 { // of the ten
		t.Error("ended as if the drain had been completed")
	}
}

// waitFor waits for the process to end by itself.
func (n *node) waitFor(t *testing.T, limit time.Duration) (code int) {
	t.Helper()
	within(t, limit, n.id+" has ended", func() error { return check(!n.Running(), "it runs") })
	return n.Wait()
}

// fullest adds so many neighbouring buckets up and answers the largest sum.
func fullest(buckets []int, together int) (most int) {
	sum := 0
	for i, n := range buckets {
		sum += n
		if i >= together {
			sum -= buckets[i-together]
		}
		most = max(most, sum)
	}
	return most
}
