package hands

import (
	"net"
	"runtime"
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
		var seen []byte
		before := runtime.NumGoroutine()
		count := func() int { return runtime.NumGoroutine() - before }
		h := New(func(b byte) { seen = append(seen, b) })
		for i := range 5 {
			h.Do(byte(i))
			synctest.Wait()
			time.Sleep(idleTime - time.Millisecond)
			if n := count(); n != 1 {
				t.Errorf("%d hands after task %d, want the one", n, i)
			}
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := count(); n != 0 {
			t.Errorf("%d hands after %v without a task", n, idleTime)
		}
		h.Do(5)
		h.End()
		if string(seen) != "\x00\x01\x02\x03\x04\x05" {
			t.Errorf("worked on %v", seen)
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
