package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test waits for what must happen. It normally takes milliseconds, but the machine may stand still for some seconds.
const patience = 30 * time.Second

func TestServerKeepsItsPortOverRestart(t *testing.T) {
	t.Parallel()
	s := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	s.Do("SET", "k", "v")
	port := s.Port
	s.Kill()
	if _, err := s.Try("PING"); err == nil {
		t.Error("a killed server answers")
	}
	s.Restart()
	if got := s.Do("GET", "k"); got != "v" || s.Port != port {
		t.Errorf("after restart GET k = %v on port %d, want v on %d", got, s.Port, port)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	s := Start(t)
	s.Pause()
	c, err := net.DialTimeout("tcp", s.Addr(), patience)
	if err != nil {
		t.Fatal("a paused server's kernel still accepts:", err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("PING\r\n"))
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("paused server answered %d bytes, %v", n, err)
	}
	s.Resume()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 10)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "+PONG\r\n" {
		t.Errorf("after Resume: %q, %v", buf[:n], err)
	}
}

func TestPromotionChangesTheReplicationID(t *testing.T) {
	t.Parallel()
	a, b := StartPair(t)
	before := b.Info("replication", "master_replid")
	if before != a.Info("replication", "master_replid") {
		t.Error("primary and replica must have one replication id")
	}
	b.Promote()
	if after := b.Info("replication", "master_replid"); after == before {
		t.Error("promotion must change the replication id")
	}
}

func TestClusterMovesASlot(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	slot := c.Slot("{a}1")
	from := c.Owner(slot)
	c.Shards[from].Do("SET", "{a}1", "x")
	to := (from + 1) % 3
	m := c.Migrate(slot, to)
	if keys := m.Keys(10); !slices.Equal(keys, []string{"{a}1"}) {
		t.Fatalf("keys of the slot: %v", keys)
	}
	if _, err := c.Shards[from].Try("GET", "{a}2"); err == nil || !strings.HasPrefix(err.Error(), "ASK") {
		t.Errorf("a missing key in a migrating slot: %v, want ASK", err)
	}
	m.Finish()
	if got := c.Shards[to].Do("GET", "{a}1"); got != "x" || c.Owner(slot) != to {
		t.Errorf("after the move: %v, owner %d, want x, owner %d", got, c.Owner(slot), to)
	}
}

func TestProxyCutsPausesRefuses(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	ask := func(c net.Conn, wait time.Duration) error {
		_ = c.SetDeadline(time.Now().Add(wait))
		if _, err := c.Write([]byte("PING\r\n")); err != nil {
			return err
		}
		buf := make([]byte, 7)
		if n, err := c.Read(buf); err != nil || n != 7 {
			return fmt.Errorf("read %d: %w", n, err)
		}
		return nil
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	c := dial()
	if err := ask(c, patience); err != nil {
		t.Fatal("through the proxy:", err)
	}
	p.Pause()
	if err := ask(c, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("paused: %v, want a timeout", err)
	}
	p.Resume()
	if n := p.Cut(); n != 1 {
		t.Errorf("cut %d connections, want 1", n)
	}
	if err := ask(c, patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		// the answer of the paused PING may still be in the buffer: the next read ends
		if err := ask(c, patience); err == nil {
			t.Error("a cut connection works")
		}
	}
	p.Refuse(true)
	if err := ask(dial(), patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("refused connection: %v", err)
	}
	p.Refuse(false)
	if err := ask(dial(), patience); err != nil {
		t.Error("after Refuse(false):", err)
	}
}

func TestTLSAndScope(t *testing.T) {
	t.Parallel()
	scope := &Scope{}
	s, conf := StartTLS(scope)
	if s.Do("PING") != "PONG" || conf.RootCAs == nil {
		t.Error("no answer over TLS")
	}
	dir := s.dir
	scope.End()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("folder is left behind: %v", err)
	}
	if _, err := s.Try("PING"); err == nil {
		t.Error("server is left behind")
	}
}
