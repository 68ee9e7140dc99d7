package awsnode

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"tideline/local/balancer"
	"tideline/shared/bus"
	"tideline/shared/metric"
	"tideline/shared/token"
	"tideline/test/fleet"
	"tideline/test/leak"
	"tideline/test/redistest"
)

func TestMain(m *testing.M) { leak.Main(m, fleet.RemoveBinaries) }

const (
	room      = "chat:lobby"
	namespace = "Tideline/test"
	hook      = "drain"
	clients   = 24
	grace     = time.Second
	window    = 2 * time.Second
)

// machine is an instance and the node that runs on it.
type machine struct {
	*Instance
	*fleet.Process
	url, private string
}

func boot(t *testing.T, cloud *Cloud, redis, id, zone string) *machine {
	t.Helper()
	m := &machine{Instance: cloud.Launch(t, id, zone)}
	m.Process = fleet.Run(t, id, fleet.Binary(t, "node"), append([]string{"PORT=127.0.0.1:0", "PRIVATE_PORT=127.0.0.1:0", "NODE_ID=" + id, "REDIS_URL=" + redis,
		"TOKEN_SECRETS=" + fleet.Secret, "STAGE=test", "TRUSTED_HOPS=2", "DRAIN_GRACE=" + grace.String(), "DRAIN_WINDOW=" + window.String()}, m.Env(namespace)...))
	found := m.Await(`"node ready".*"public":"([^"]+)","private":"([^"]+)"`)
	m.url, m.private = "http://"+found[1], "http://"+found[2]
	return m
}

// balance puts the stand-in for the load balancer in front and answers the address for sockets.
func balance(t *testing.T, machines ...*machine) string {
	t.Helper()
	var targets []balancer.Target
	for _, m := range machines {
		public, err := url.Parse(m.url)
		if err != nil {
			t.Fatal(err)
		}
		health, err := url.Parse(m.private + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, balancer.Target{Name: m.ID, URL: public, Health: health})
	}
	b, err := balancer.New(balancer.Options{Targets: targets, HealthEvery: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
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
	t.Cleanup(func() { cancel(); _ = server.Close(); running.Wait() })
	return "ws://" + l.Addr().String() + "/connection/websocket"
}

// listener is a client of the public SDK that notes what it hears.
type listener struct {
	mu    sync.Mutex
	live  bool
	heard []int
	told  int // recovered: false
	codes []uint32
}

func listen(t *testing.T, socket, user string) *listener {
	t.Helper()
	secrets, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := secrets.Sign(token.Claims{User: user, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{}
	c := centrifuge.NewJsonClient(socket, centrifuge.Config{Token: raw, MinReconnectDelay: 50 * time.Millisecond, MaxReconnectDelay: time.Second,
		Header: http.Header{"X-Forwarded-For": {"10.1.1.1"}}})
	t.Cleanup(c.Close)
	c.OnConnecting(func(e centrifuge.ConnectingEvent) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.Code != 0 { // 0: the first connect
			l.codes = append(l.codes, e.Code)
		}
	})
	sub, err := c.NewSubscription(room)
	if err != nil {
		t.Fatal(err)
	}
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.live = true
		if e.WasRecovering && !e.Recovered {
			l.told++
		}
	})
	sub.OnPublication(func(e centrifuge.PublicationEvent) {
		var n int
		_ = json.Unmarshal(e.Data, &n) // what is no number is 0, and so out of order
		l.mu.Lock()
		defer l.mu.Unlock()
		l.heard = append(l.heard, n)
	})
	for _, begin := range []func() error{sub.Subscribe, c.Connect} {
		if err := begin(); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *listener) last() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.heard) == 0 {
		return 0
	}
	return l.heard[len(l.heard)-1]
}

func (l *listener) standing() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.live }

// speak publishes numbers from 1 on, 50 a second, until the answer is called, which answers the last one.
func speak(t *testing.T, redis string) (stop func() int) {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Options{URL: redis, Stage: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	last := make(chan int, 1)
	go func() {
		n := 0
		defer func() { last <- n }()
		beat := time.NewTicker(20 * time.Millisecond)
		defer beat.Stop()
		for ctx.Err() == nil {
			if _, err := b.Publish(context.Background(), bus.Publication{Channel: room, Data: fmt.Append(nil, n+1), ID: fmt.Sprint("n", n+1),
				History: bus.History{Size: 1000, TTL: time.Hour}}); err != nil {
				t.Errorf("publish %d: %v", n+1, err)
				return
			}
			n++
			select {
			case <-beat.C:
			case <-ctx.Done():
			}
		}
	}()
	stop = sync.OnceValue(func() int { cancel(); return <-last })
	t.Cleanup(func() { stop() })
	return stop
}

// connections is what a node says of itself.
func connections(t *testing.T, m *machine) string {
	t.Helper()
	res, err := fleet.Client(nil).Get(m.private + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + metric.Connections + `\{[^}]*\} (\d+)$`).FindSubmatch(page)
	if found == nil {
		t.Fatalf("%s does not count connections", m.ID)
	}
	return string(found[1])
}

// Three nodes, one of which the group takes away: the metadata says so, the node drains while the load balancer still deregisters it, the action is
// refused until the hook waits, then accepted, and then the instance ends. CloudWatch hears from all, Auto Scaling is throttled on the way.
func TestScaleInOfOneOfThreeNodes(t *testing.T) {
	cloud := Start(t, "tideline-test-Nodes-1", hook)
	r := redistest.Start(t)
	redis := r.URL()
	var machines []*machine
	for i, zone := range []string{"eu-west-1a", "eu-west-1b", "eu-west-1c"} {
		machines = append(machines, boot(t, cloud, redis, fmt.Sprintf("i-%d", i+1), zone))
		machines[i].Await(`"on an instance".*"zone":"` + zone + `","group":"` + cloud.Group)
	}
	socket := balance(t, machines...)
	stop := speak(t, redis)
	var all []*listener
	for i := range clients {
		all = append(all, listen(t, socket, fmt.Sprint("user", i)))
	}
	fleet.Poll(t, "everybody hears", func() error {
		for i, l := range all {
			if !l.standing() || l.last() == 0 {
				return fmt.Errorf("client %d does not", i)
			}
		}
		return nil
	})
	leaving := machines[0]
	if held := connections(t, leaving); held == "0" {
		t.Fatal("the node that goes holds nobody")
	}
	fleet.Poll(t, "each node sends its connections", func() error {
		if n := len(cloud.Data(metric.CloudConnections)); n < len(machines) {
			return fmt.Errorf("%d of %d", n, len(machines))
		}
		return nil
	})

	leaving.Enter("Terminating")
	leaving.Await(`"drain ordered".*target lifecycle state Terminated`)
	leaving.Await(`"drained; not ready until the end"`)
	if held := connections(t, leaving); held != "0" {
		t.Errorf("drained with %s connections", held)
	}
	leaving.Await(`"lifecycle action not completed yet".*No active Lifecycle Action`)
	cloud.SetFault(AutoScaling, Throttle)
	leaving.Await(`"lifecycle action not completed yet".*Throttling`)
	leaving.Enter("Terminating:Wait") // the load balancer has deregistered it
	cloud.SetFault(AutoScaling, None)
	leaving.Await(`"lifecycle action completed"`)
	if states := leaving.States(); !slices.Equal(states, []string{"InService", "Terminating", "Terminating:Wait", "Terminating:Proceed"}) {
		t.Errorf("the instance went through %v", states)
	}
	leaving.Signal(syscall.SIGTERM) // the instance shuts down
	if code := leaving.Wait(); code != 0 {
		t.Errorf("the node ended with %d:\n%s", code, leaving.Tail())
	}

	last := stop()
	fleet.Poll(t, "everybody has heard everything", func() error {
		for i, l := range all {
			if l.last() != last {
				return fmt.Errorf("client %d is at %d of %d", i, l.last(), last)
			}
		}
		return nil
	})
	moved := 0
	for i, l := range all {
		l.mu.Lock()
		for k := 1; k < len(l.heard); k++ {
			if l.heard[k] != l.heard[k-1]+1 {
				t.Errorf("client %d heard %d after %d", i, l.heard[k], l.heard[k-1])
			}
		}
		if l.told > 0 {
			t.Errorf("client %d was told %d times that something is gone", i, l.told)
		}
		if len(l.codes) > 0 {
			moved++
		}
		if slices.ContainsFunc(l.codes, func(code uint32) bool { return code != 3001 }) {
			t.Errorf("client %d was closed with %v", i, l.codes)
		}
		l.mu.Unlock()
	}
	if moved == 0 {
		t.Error("nobody was moved")
	}
	t.Logf("%d publications, %d clients, %d of them moved", last, len(all), moved)
	if got := cloud.Sum(metric.CloudDeliveries); got == 0 {
		t.Error("the node that ended has not sent its last figures")
	}
	for _, wrong := range cloud.Wrong() {
		t.Error(wrong)
	}
	if strings.Contains(leaving.Output(), "not sent") {
		t.Error("figures were not sent")
	}
}
