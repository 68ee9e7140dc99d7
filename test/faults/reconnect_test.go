package faults

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/test/redistest"
)

// Twenty clients whose connections are cut at random moments while one room is published on 200 times a second, each reconnect on another
// node: what one node had not sent yet another one sends, and nothing twice.
func TestRandomCutsWhilePublishing(t *testing.T) {
	t.Parallel()
	const room = "chat:cuts"
	r := redistest.Start(t)
	nodes := []*node{startNode(t, "a", r.URL()), startNode(t, "b", r.URL()), startNode(t, "c", r.URL())}
	p := newPublisher(t, openBus(t, r.URL()), room)
	var clients []*client
	for i := range 16 {
		clients = append(clients, newClient(t, fmt.Sprint("cut-", i), inTurn(i, nodes...), room).start(t))
	}
	// The SDK's connections go through proxies, so that they can be cut.
	var proxies []*redistest.Proxy
	all := subscribers(clients)
	for i := range 4 {
		proxy := redistest.StartProxy(t, addrOf(t, nodes[i%len(nodes)].socket))
		proxies = append(proxies, proxy)
		all = append(all, startSDK(t, fmt.Sprint("cut-sdk-", i), "ws://"+proxy.Addr()+"/connection/websocket", room))
	}
	awaitSubscribed(t, all)
	stop := load(t, time.Second/200, p)
	var cutting sync.WaitGroup
	end := time.Now().Add(pick(20*time.Second, time.Minute))
	randomly := func(cut func()) {
		cutting.Go(func() {
			for time.Now().Before(end) && t.Context().Err() == nil {
				pass(t, 100*time.Millisecond+rand.N(2*time.Second))
				cut()
			}
		})
	}
	for _, c := range clients {
		randomly(c.cut)
	}
	for _, p := range proxies {
		randomly(func() { p.Cut() })
	}
	cutting.Wait()
	stop()
	c := verdict(t, all, p)
	// Nobody is told without a reason: only who was away for longer than history lasts, which takes a machine that stands still for seconds.
	if ns, err := channel.Shipped().Lookup("chat:x"); err != nil || c.told > 0 && c.skipped < c.told*ns.HistorySize {
		t.Errorf("%d were told that %d publications are gone; history holds %d (%v)", c.told, c.skipped, ns.HistorySize, err)
	}
	if c.reconnects < 100 {
		t.Errorf("only %d reconnects", c.reconnects)
	}
}

// A client comes from a node that has heard more than the one that it comes to, whose Redis connections are held up: it is answered only when
// that node has caught up, and what it had is not repeated.
func TestClientAheadOfItsNode(t *testing.T) {
	t.Parallel()
	const user, channel = "mover", "todos:#mover" // without presence, which would need an answer from Redis first
	r := redistest.Start(t)
	p := redistest.StartProxy(t, r.Addr())
	quick, slow := startNode(t, "quick", r.URL()), startNode(t, "slow", p.URL())
	mover, stays := newClient(t, user, at(quick), channel).start(t), newClient(t, user, at(slow), channel).start(t)
	all := subscribers([]*client{mover, stays})
	awaitSubscribed(t, all)
	pub := newPublisher(t, openBus(t, r.URL()), channel)
	pub.burst(t, 5)
	awaitCaughtUp(t, all, []*publisher{pub})
	p.PauseAnswers()
	pub.burst(t, 5)
	awaitCaughtUp(t, all[:1], []*publisher{pub}) // the other node stands five behind
	moveTo(at(slow), mover)
	mover.letGo()
	within(t, patience, "the node says that it can't answer now", func() error {
		return check(mover.subErrors.Load() > 0, "no temporary error, and %d connects", mover.connects.Load())
	})
	p.Resume()
	awaitSubscribed(t, all)
	pub.burst(t, 5)
	verdict(t, all, pub).wantTold(t, false)
}

// A node dies under load: its clients go to the others and miss nothing, and those of the others notice nothing.
func TestNodeKilledUnderLoad(t *testing.T) {
	t.Parallel()
	rooms := []string{"chat:a", "chat:b"}
	r := redistest.Start(t)
	nodes := []*node{startNode(t, "a", r.URL()), startNode(t, "b", r.URL()), startNode(t, "c", r.URL())}
	b := openBus(t, r.URL())
	var ps []*publisher
	for _, room := range rooms {
		ps = append(ps, newPublisher(t, b, room))
	}
	var clients []*client
	for i := range 60 {
		clients = append(clients, newClient(t, fmt.Sprint("c", i), inTurn(i, nodes...), rooms...).start(t))
	}
	all := append(subscribers(clients), startSDK(t, "sdk", nodes[2].socket, rooms...))
	awaitSubscribed(t, all)
	stop := load(t, 20*time.Millisecond, ps...)
	for _, dying := range nodes[:2] {
		pass(t, 2*time.Second)
		dying.Kill()
		awaitSubscribed(t, all)
	}
	pass(t, time.Second)
	stop()
	c := verdict(t, all, ps...)
	c.wantTold(t, false)
	if c.reconnects < 40 {
		t.Errorf("%d reconnects, and two of three nodes died under 60 clients", c.reconnects)
	}
}

// readsMax is the handful: one for each moment at which the node has none in flight and somebody needs one.
const readsMax = 5

// A reconnect storm: 2,000 clients of one channel with ten different positions arrive together at a node that has never followed it.
func TestReconnectStormReadsHistoryAHandfulOfTimes(t *testing.T) {
	const room, groups = "chat:storm", 10
	r := redistest.Start(t)
	warm := startNode(t, "warm", r.URL())
	p := newPublisher(t, openBus(t, r.URL()), room)
	clients := make([]*client, crowd(2000))
	for i := range clients {
		clients[i] = newClient(t, fmt.Sprint("storm-", i), at(warm), room).start(t)
	}
	all := subscribers(clients)
	awaitSubscribed(t, all)
	cold := startNode(t, "cold", r.URL())
	for g := range groups {
		p.burst(t, 10)
		awaitCaughtUp(t, all[g*len(all)/groups:], []*publisher{p})
		moveTo(at(cold), clients[g*len(all)/groups:(g+1)*len(all)/groups]...)
	}
	p.burst(t, 10)
	r.Do("CONFIG", "RESETSTAT")
	seen := watchCommands(t, r, func(line string) bool {
		return strings.Contains(line, "lua]") && strings.Contains(strings.ToLower(line), `"xrange"`) && strings.Contains(line, room)
	})
	began := time.Now()
	for _, c := range clients {
		c.letGo()
	}
	awaitSubscribed(t, all)
	took := time.Since(began)
	p.burst(t, 10)
	c := verdict(t, all, p)
	c.wantTold(t, false)

	byNode, byRedis := cold.metric(t, "bus_history_reads_total"), seen()
	fmt.Printf("%s: %d clients with %d positions were back after %v: %.0f history reads by the node's count, %d by Redis's "+
		"(%d XRANGE of all kinds, the nodes' heartbeats among them, and %d scripts); %.0f recoveries from memory, %.0f after a read\n",
		t.Name(), len(all), groups, took.Round(time.Millisecond), byNode, byRedis, calls(t, r, "xrange"), calls(t, r, "evalsha"),
		cold.metric(t, "bus_recoveries_total", `result="ring"`), cold.metric(t, "bus_recoveries_total", `result="redis"`))
	if byNode < 1 || byNode > readsMax || byRedis < 1 || byRedis > readsMax {
		t.Errorf("%.0f history reads by the node's count, %d by Redis's, want 1 to %d", byNode, byRedis, readsMax)
	}
	if n := calls(t, r, "xrange"); n > readsMax+heartbeatReads*(1+int(time.Since(began)/(5*limit.Heartbeat))) {
		t.Errorf("Redis ran %d XRANGE", n)
	}
}

// heartbeatReads is what two nodes read of the fleet's streams in five heartbeats, which is longer than the storm, beside any channel's history.
const heartbeatReads = 20

// watchCommands counts the commands that Redis runs and that match, as MONITOR shows them, until the answer is called.
func watchCommands(t *testing.T, r *redistest.Server, match func(line string) bool) (count func() int) {
	t.Helper()
	conn, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReaderSize(conn, 1<<20)
	if ok, err := lines.ReadString('\n'); err != nil || ok != "+OK\r\n" {
		t.Fatalf("MONITOR: %q %v", ok, err)
	}
	result := make(chan int, 1)
	go func() {
		n := 0
		for {
			line, err := lines.ReadString('\n')
			if err != nil || strings.Contains(line, "end of watch") {
				result <- n
				return
			}
			if match(line) {
				n++
			}
		}
	}()
	return func() int {
		r.Do("ECHO", "end of watch")
		select {
		case n := <-result:
			return n
		case <-time.After(time.Minute):
			t.Fatal("MONITOR is behind by more than a minute")
			return 0
		}
	}
}

// calls is how often Redis has run a command since the last CONFIG RESETSTAT.
func calls(t *testing.T, r *redistest.Server, command string) int {
	t.Helper()
	stat := r.Info("commandstats", "cmdstat_"+command)
	if stat == "" {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(stat, "calls="), ",")
	n, err := strconv.Atoi(first)
	if err != nil {
		t.Fatalf("commandstats of %s: %q", command, stat)
	}
	return n
}
