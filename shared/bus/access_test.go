package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/redistest"
)

// everything does what the package can do, once.
func everything(t *testing.T, b *Bus) {
	t.Helper()
	if err := b.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	// What is remembered expires, and is swept by what follows.
	mustPublish(t, b, text("chat:sweep", "remembered"))
	b.now = func() time.Time { return time.Now().Add(24 * time.Hour) }
	mustPublish(t, b, text("chat:sweep", "sweeps"))
	b.now = time.Now
	r := newRecorder()
	s := follow(t, b, r, func(tn *tuning) {
		tn.probeEvery, tn.rotateMin, tn.rotateMax = 20*time.Millisecond, 50*time.Millisecond, 60*time.Millisecond
	})
	channels := []string{"chat:all", "chat:all2", "chat:all3", "chat:all4"}
	for _, c := range channels {
		s.Subscribe(c)
	}
	r.confirmedTimes(t, 1, channels...)
	p := text("chat:all", "x")
	p.Key, p.Version, p.ID = "k", 1, "id"
	mustPublish(t, b, p)
	mustPublish(t, b, p)
	r.hears(t, "chat:all", "x")
	for _, reverse := range []bool{false, true} {
		if pubs, _, err := b.History(t.Context(), "chat:all", Page{Limit: -1, Reverse: reverse}); err != nil || len(pubs) != 1 {
			t.Errorf("history: %d, %v", len(pubs), err)
		}
	}
	if _, errs := b.Positions(t.Context(), channels); errors.Join(errs...) != nil {
		t.Error(errs)
	}
	if _, err := b.RemoveHistory(t.Context(), "chat:all"); err != nil {
		t.Error(err)
	}
	s.Unsubscribe("chat:all2")
	fleet(t, b)
	eventually(t, func() error {
		if b.Stats().Rotated == 0 {
			return errors.New("no rotation yet")
		}
		for _, sh := range s.shards {
			if !sh.resting.Load() && sh.probed.Load() == 0 {
				return errors.New("no probe has come back")
			}
		}
		return nil
	})
	r.check(t)
}

// fleet runs a lease, presence, a survey, a revocation and a lock.
func fleet(t *testing.T, b *Bus) {
	t.Helper()
	run := func(f func(context.Context) error) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("run: %v", err)
			}
		})
	}
	info := ClientInfo{User: "u", Client: "c"}
	o := LeaseOptions{Node: "n1", Heartbeat: 40 * time.Millisecond, TTL: 400 * time.Millisecond, Audit: 100 * time.Millisecond}
	o.Members = func() map[string][]ClientInfo { return map[string][]ClientInfo{"chat:all": {info}} }
	lease := b.NewLease(o)
	run(lease.Run)
	control := b.NewControl(lease, ControlOptions{Answer: func(context.Context, string, []byte) ([]byte, error) { return []byte("yes"), nil }})
	run(control.Run)
	eventually(t, func() error { return lease.Enter(t.Context(), "chat:all", info, true) })
	eventually(t, func() error {
		members, err := b.Presence(t.Context(), "chat:all")
		if err == nil && len(members) != 1 {
			err = fmt.Errorf("%d members", len(members))
		}
		return err
	})
	if _, err := b.PresenceStats(t.Context(), "chat:all"); err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		answers, missing, err := b.Survey(t.Context(), "ask", nil)
		if err == nil && (len(answers) != 1 || len(missing) != 0) {
			err = fmt.Errorf("%d answers, %d missing", len(answers), len(missing))
		}
		return err
	})
	eventually(t, func() error {
		_, err := control.Ask(t.Context(), control.Address(), nil)
		if asked := (*AskedError)(nil); errors.As(err, &asked) {
			return nil // what a node without Asked says
		}
		return fmt.Errorf("ask: %w", err)
	})
	if err := b.Revoke(t.Context(), Revocation{User: "u"}); err != nil {
		t.Error(err)
	}
	lock, err := b.Acquire(t.Context(), "docker:x", "x", LockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	fenced := text("docker:x", "line")
	fenced.Fence = lock.Fence("cursor")
	mustPublish(t, b, fenced)
	if err := lock.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if err := lease.Leave(t.Context(), "chat:all", "c", true); err != nil {
		t.Error(err)
	}
	// A second node dies without a word: the first one removes what it left.
	dead, kill := context.WithCancel(context.Background())
	other := b.NewLease(LeaseOptions{Node: "n2", Members: func() map[string][]ClientInfo { return nil }, Heartbeat: 40 * time.Millisecond, TTL: 400 * time.Millisecond})
	done := make(chan struct{})
	go func() { defer close(done); _ = other.Run(dead) }()
	eventually(t, func() error { return other.Enter(t.Context(), "chat:gone", ClientInfo{User: "v", Client: "d"}, true) })
	kill()
	<-done
	eventually(t, func() error {
		members, err := b.Presence(t.Context(), "chat:gone")
		if err == nil && len(members) != 0 {
			err = fmt.Errorf("%d members", len(members))
		}
		return err
	})
}

// The bus does everything under exactly the rights of AccessString: nothing is denied, and nothing is allowed in vain.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	used := make(chan string, 1000)
	t.Run("servers", func(t *testing.T) {
		t.Run("one server", func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			leastPrivilege(t, "redis://tl:pw@"+server.Addr(), used, server)
		})
		t.Run("several hosts", func(t *testing.T) {
			t.Parallel()
			primary, replica := redistest.StartPair(t)
			leastPrivilege(t, "redis://tl:pw@"+replica.Addr()+","+primary.Addr(), used, primary, replica)
		})
		t.Run("cluster", func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t)
			leastPrivilege(t, strings.Replace(cluster.URL(), "://", "://tl:pw@", 1), used, cluster.Shards[:]...)
		})
	})
	close(used)
	var all []string
	for c := range used {
		all = append(all, c)
	}
	for _, c := range ACLCommands() {
		if !slices.Contains(all, c) {
			t.Errorf("%s is allowed and never used", c)
		}
	}
}

func leastPrivilege(t *testing.T, url string, used chan<- string, servers ...*redistest.Server) {
	for _, s := range servers {
		s.Do(append([]string{"ACL", "SETUSER", "tl", "on", ">pw"}, strings.Fields(AccessString("test"))...)...)
		s.Do("CONFIG", "RESETSTAT")
	}
	// The rights end at the stage.
	foreign := openTest(t, Options{URL: url, Stage: "other"})
	_, err := foreign.Publish(t.Context(), text("chat:a", "x"))
	wantErr(t, err, ErrUnavailable)
	if err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("publishing in another stage: %v", err)
	}
	for _, s := range servers {
		s.Do("ACL", "LOG", "RESET")
	}
	t.Cleanup(func() {
		for _, s := range servers {
			for _, entry := range s.Do("ACL", "LOG").([]any) {
				t.Errorf("denied: %v", entry)
			}
		}
	})
	b := openTest(t, Options{URL: url})
	everything(t, b)
	for _, s := range servers {
		stats, _ := s.Do("INFO", "commandstats").(string)
		for line := range strings.Lines(stats) {
			if name, _, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":"); ok {
				used <- name
			}
		}
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "secret")
	everything(t, openTest(t, Options{URL: "redis://:secret@" + server.Addr()}))
	wrong := openTest(t, Options{URL: "redis://:wrong@" + server.Addr()})
	started := time.Now()
	_, err := wrong.Publish(t.Context(), text("chat:a", "x"))
	wantErr(t, err, ErrUnavailable)
	if took := time.Since(started); took > limit.PublishTimeout {
		t.Errorf("a wrong password was tried for %v: it won't become right", took)
	}
	if strings.Contains(err.Error(), "wrong@") || strings.Contains(err.Error(), ":wrong") {
		t.Errorf("the error shows the password: %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server, conf := redistest.StartTLS(t)
	everything(t, openTest(t, Options{URL: server.URL(), TLS: conf}))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := openTest(t, Options{URL: server.URL()}).Ping(ctx)
	wantErr(t, err, ErrUnavailable)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
}

// The hook is asked at every dial, of commands and of subscriptions, and what it says last is what counts.
func TestCredentialsAtEveryDial(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	grant := func(password string) {
		server.Do(append([]string{"ACL", "SETUSER", "iam", "on", "resetpass", ">" + password}, strings.Fields(AccessString("test"))...)...)
	}
	grant("token-1")
	proxy := redistest.StartProxy(t, server.Addr())
	var calls atomic.Int64
	var token atomic.Pointer[string]
	set := func(s string) { token.Store(&s) }
	set("token-1")
	b := openTest(t, Options{URL: "redis://ignored:ignored@" + proxy.Addr(), PoolSize: 2,
		Credentials: func(context.Context) (string, string, error) {
			calls.Add(1)
			return "iam", *token.Load(), nil
		}})
	r := newRecorder()
	s := follow(t, b, r, func(tn *tuning) { tn.stable = time.Millisecond })
	s.Subscribe("chat:iam")
	r.confirmedTimes(t, 1, "chat:iam")
	mustPublish(t, b, text("chat:iam", "x"))
	var before int64
	eventually(t, func() error { // a connection that is being made is accepted first
		if before = calls.Load(); before < 2 || int(before) != proxy.Accepted() {
			return fmt.Errorf("%d calls for %d connections", before, proxy.Accepted())
		}
		return nil
	})
	grant("token-2")
	set("token-2")
	proxy.Cut()
	r.confirmedTimes(t, 2, "chat:iam")
	mustPublish(t, b, text("chat:iam", "y"))
	r.hears(t, "chat:iam", "y")
	if calls.Load() <= before {
		t.Error("new connections must ask again")
	}
	// A hook that fails is an outage like any other.
	broken := openTest(t, Options{URL: server.URL(), Credentials: func(context.Context) (string, string, error) {
		return "", "", errors.New("no credentials")
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := broken.Publish(ctx, text("chat:a", "x"))
	wantErr(t, err, ErrUnavailable)
}

// Of several hosts the primary is used, also after a failover that no name follows.
func TestSeveralHosts(t *testing.T) {
	t.Parallel()
	a, b2 := redistest.StartPair(t)
	b := openTest(t, Options{URL: "redis://" + b2.Addr() + "," + a.Addr()})
	c := newConsumer(t, b)
	s := follow(t, b, c, func(tn *tuning) { tn.stable = time.Millisecond })
	s.Subscribe(sceneChannel)
	c.ready(t, sceneChannel)
	sc := &scene{a: a, b: b2, bus: b, sub: s, c: c}
	first := sc.publish(t, "a", 2)
	waitReplicated(t, b2, b, 2)
	a.Kill()
	b2.Promote()
	second := sc.publish(t, "b", 2)
	if second.Epoch == first.Epoch || second.Offset != 4 {
		t.Errorf("before %+v, after %+v", first, second)
	}
	sc.wantTold(t, 1)
	a.Restart()
	a.ReplicaOf(b2)
	sc.publish(t, "c", 2)
	sc.wantTold(t, 1)
}
