package hands

import (
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Tasks that are given while others run don't wait for them; End waits for all.
func TestHandsDoAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Int32
		h := New(func(wait time.Duration) { time.Sleep(wait); done.Add(1) })
		began := time.Now()
		for range 100 {
			h.Do(time.Second)
		}
		h.End()
		if n := done.Load(); n != 100 {
			t.Errorf("%d of 100 tasks are done", n)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("they took %v together, want that of one", took)
		}
	})
}

// A hand that is idle takes the next task, also much later than its start, and ends when none comes.
func TestHandsAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []int
		h := New(func(n int) { done = append(done, n) })
		idle := func(n int) bool { // gives a task to a hand that waits, if there is one
			synctest.Wait()
			select {
			case h.tasks <- n:
				synctest.Wait()
				return true
			default:
				return false
			}
		}
		h.Do(0)
		for n := 1; n < 5; n++ {
			time.Sleep(idleTime - time.Millisecond)
			if !idle(n) {
				t.Errorf("no hand is left before task %d", n)
			}
		}
		if !idle(5) || !idle(6) {
			t.Error("the hand takes no task right after another")
		}
		time.Sleep(idleTime + time.Millisecond)
		if idle(7) {
			t.Errorf("a hand is left after %v without a task", idleTime)
		}
		h.Do(8)
		h.End()
		if want := []int{0, 1, 2, 3, 4, 5, 6, 8}; !slices.Equal(done, want) {
			t.Errorf("worked on %v, want %v", done, want)
		}
	})
}

// Readable is false while there is nothing to read, and true with bytes, which stay where they are, and at the end.
func TestReadable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if err := near.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	raw, err := near.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if Readable(fd) {
			t.Error("readable before anything has come")
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(Readable); err != nil {
		t.Fatal(err)
	}
	if n, err := near.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	far.Close()
	if err := raw.Read(Readable); err != nil {
		t.Fatal(err)
	}
	if n, err := near.Read(make([]byte, 2)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v at the end", n, err)
	}
}
