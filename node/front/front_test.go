package front

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers what it was asked, in the ways that handlers here do; "front" tells whether net/http had the request.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	_, here := w.(*writer)
	switch r.URL.Query().Get("as") {
	case "silent":
		return
	case "empty":
		w.WriteHeader(http.StatusNoContent)
		return
	case "error":
		http.Error(w, "no", http.StatusTeapot)
		return
	case "strange":
		w.WriteHeader(299)
	case "late":
		w.WriteHeader(http.StatusOK)
		w.Header().Set("X-Late", "1")
	case "typed":
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Two\r\nlines", "a\r\nb")
		w.Header().Set("X-Tail", "a\r\nb")
	case "sized":
		w.Header().Set("Content-Length", "3")
		_, _ = io.WriteString(w, "abc")
		return
	case "close":
		w.Header().Set("Connection", "close")
	case "long":
		_, _ = w.Write(bytes.Repeat([]byte("x"), 3*writeAtOnce))
		return
	case "abort":
		panic(http.ErrAbortHandler)
	case "panic":
		panic("told to")
	case "hijack":
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nh")
		_ = rw.Flush()
		_ = c.Close()
		return
	case "where":
		_, _ = fmt.Fprint(w, here)
		return
	}
	_, _ = fmt.Fprintf(w, "%s %s %s %q %v %d %q %v\n", r.Method, r.RequestURI, r.Host, body, err, r.ContentLength, r.Header, r.RemoteAddr != "")
}

const deadline = 30 * time.Second

// startServer starts net/http, behind a front or alone, and answers its address.
func startServer(t testing.TB, h http.Handler, alone bool, change func(*Options)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, h, alone, change)
}

func serveOn(t testing.TB, l net.Listener, h http.Handler, alone bool, change func(*Options)) string {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), ReadHeaderTimeout: deadline}
	o := Options{Handler: h, Lines: []string{"GET /here", "POST /here"}, First: deadline, Idle: deadline, Log: quiet}
	if change != nil {
		change(&o)
	}
	addr := l.Addr().String()
	var running sync.WaitGroup
	running.Go(func() {
		if alone {
			_ = server.Serve(l)
			return
		}
		f := Listen(l, o)
		if err := server.Serve(f); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("served: %v", err)
		}
		f.Wait()
	})
	t.Cleanup(func() { _ = server.Close(); running.Wait() })
	return addr
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return c
}

// where asks on a connection who answers: true is Front.
func where(t *testing.T, c net.Conn, r *bufio.Reader, extra string) string {
	t.Helper()
	if _, err := io.WriteString(c, "GET /here?as=where HTTP/1.1\r\n"+host+extra+"\r\n"); err != nil {
		t.Fatal(err)
	}
	return answer(t, r)
}

func answer(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// A connection is Front's, request after request and after a rest, until one isn't plain: from then on it is net/http's.
func TestConnectionIsPassedOnOnce(t *testing.T) {
	addr := startServer(t, http.HandlerFunc(echo), false, nil)
	c := dial(t, addr)
	r := bufio.NewReader(c)
	for i := range 3 {
		if got := where(t, c, r, ""); got != "true" {
			t.Fatalf("request %d: Front answered: %s", i, got)
		}
	}
	time.Sleep(quietTime + quietTime/2) // its goroutine has gone to others
	if got := where(t, c, r, ""); got != "true" {
		t.Fatalf("after a rest: Front answered: %s", got)
	}
	if got := where(t, c, r, "X-Bytes: \xff\r\n"); got != "false" {
		t.Fatalf("what isn't plain: Front answered: %s", got)
	}
	if got := where(t, c, r, ""); got != "false" {
		t.Fatalf("after that: Front answered: %s", got)
	}
}

// A request that comes in the moment in which its wait ends is not lost.
func TestRequestAtTheDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far := dial(t, l.Addr().String())
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	raw, err := near.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{TCPConn: near.(*net.TCPConn), raw: raw}
	if _, err := io.WriteString(far, "request"); err != nil {
		t.Fatal(err)
	}
	var in [16]byte
	if err := c.wait(in[:]); err != nil || string(in[:c.n]) != "request" {
		t.Fatalf("%q, %v", in[:c.n], err)
	}
	if err := near.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.take(in[:c.n]); err != nil || string(in[:c.n]) != "request" {
		t.Errorf("%q, %v", in[:c.n], err)
	}
	if err := c.wait(in[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("waits for what is taken: %v", err)
	}
	if err := c.take(in[:1]); err == nil {
		t.Error("took what hasn't come")
	}
	near.Close()
	if err := c.take(in[:1]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("took from a closed connection: %v", err)
	}
}

// Longer requests than RequestBytes are net/http's.
func TestRequestBytes(t *testing.T) {
	addr := startServer(t, http.HandlerFunc(echo), false, nil)
	for extra, want := range map[int]string{0: "true", 1: "false"} {
		c := dial(t, addr)
		const frame = "GET /here?as=where HTTP/1.1\r\n" + host + "X: \r\n\r\n"
		got := where(t, c, bufio.NewReader(c), "X: "+strings.Repeat("x", RequestBytes-len(frame)+extra)+"\r\n")
		if got != want {
			t.Errorf("%d bytes: Front answered: %s", RequestBytes+extra, got)
		}
	}
}

// A request that comes in pieces goes to the server behind as if nobody had touched it.
func TestRequestInPieces(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := Listen(l, Options{Handler: http.NotFoundHandler(), Lines: []string{"POST /here"}, First: deadline, Idle: deadline, Log: slog.New(slog.DiscardHandler)})
	defer f.Wait()
	defer f.Close()
	defer time.AfterFunc(deadline, func() { f.Close() }).Stop()
	far := dial(t, l.Addr().String())
	pieces := []string{"POST /here HTTP/1.1\r\n", host + "Content-Length: 2\r\n\r\n", "ab"}
	var near net.Conn
	for i, piece := range pieces {
		if _, err := io.WriteString(far, piece); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			continue
		}
		if near, err = f.Accept(); err != nil {
			t.Fatal(err)
		}
		defer near.Close()
	}
	whole := strings.Join(pieces, "")
	got := make([]byte, len(whole))
	if err := near.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(near, got); err != nil || string(got) != whole {
		t.Errorf("%q, %v", got, err)
	}
}

// Long answers come whole.
func TestLongAnswer(t *testing.T) {
	addr := startServer(t, http.HandlerFunc(echo), false, nil)
	c := dial(t, addr)
	r := bufio.NewReader(c)
	for range 2 {
		if _, err := io.WriteString(c, "GET /here?as=long HTTP/1.1\r\n"+host+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if got := answer(t, r); got != strings.Repeat("x", 3*writeAtOnce) {
			t.Errorf("%d bytes", len(got))
		}
	}
}

// Connections that say nothing are closed: before their first request, and after it, on their goroutine and at rest.
func TestSilentConnectionsAreClosed(t *testing.T) {
	const short = 50 * time.Millisecond
	silent := dial(t, startServer(t, http.HandlerFunc(echo), false, func(o *Options) { o.First = short }))
	quiet := dial(t, startServer(t, http.HandlerFunc(echo), false, func(o *Options) { o.Idle = short }))
	if got := where(t, quiet, bufio.NewReader(quiet), ""); got != "true" {
		t.Fatalf("Front answered: %s", got)
	}
	for _, c := range []net.Conn{silent, quiet} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

// A client that doesn't read its answers holds nothing up for longer than the deadline that the handler sets.
func TestAnswerThatIsNotRead(t *testing.T) {
	done := make(chan struct{})
	addr := startServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(done)
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		_, _ = w.Write(make([]byte, 16<<20))
	}), false, nil)
	c := dial(t, addr)
	if _, err := io.WriteString(c, "GET /here HTTP/1.1\r\n"+host+"\r\n"); err != nil {
		t.Fatal(err)
	}
	<-done
	time.Sleep(100 * time.Millisecond)
	if n, _ := io.Copy(io.Discard, c); n >= 16<<20 {
		t.Errorf("all of it came")
	}
}

// Close ends connections at rest at once; a request that is being answered is answered, and its connection closed.
func TestClose(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun, release := make(chan struct{}), make(chan struct{})
	f := Listen(l, Options{Lines: []string{"GET /here"}, First: deadline, Idle: deadline, Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "slow" {
				close(begun)
				<-release
			}
			echo(w, r)
		})})
	fresh, rested, slow := dial(t, l.Addr().String()), dial(t, l.Addr().String()), dial(t, l.Addr().String())
	if got := where(t, rested, bufio.NewReader(rested), ""); got != "true" {
		t.Fatalf("Front answered: %s", got)
	}
	if _, err := io.WriteString(slow, "GET /here?slow HTTP/1.1\r\n"+host+"\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	if _, err := f.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after that: %v", err)
	}
	for _, c := range []net.Conn{fresh, rested} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	waited := make(chan struct{})
	go func() { f.Wait(); close(waited) }()
	select {
	case <-waited:
		t.Error("Wait has returned before the answer")
	default:
	}
	close(release)
	heard, err := io.ReadAll(slow)
	if err != nil || !strings.Contains(string(heard), "Connection: close") || !strings.HasPrefix(string(heard), "HTTP/1.1 200 OK\r\n") {
		t.Errorf("%v, %s", err, heard)
	}
	<-waited
}

// faulty fails its first calls of Accept, as when there are no files left.
type faulty struct {
	net.Listener
	mu   sync.Mutex
	left int
}

type temporary struct{ error }

func (temporary) Temporary() bool { return true }
func (temporary) Timeout() bool   { return false }

func (f *faulty) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left > 0 {
		f.left--
		return nil, temporary{errors.New("too many open files")}
	}
	return f.Listener.Accept()
}

// An error of Accept that passes is net/http's to wait for.
func TestAcceptFailsForAWhile(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := serveOn(t, &faulty{Listener: l, left: 3}, http.HandlerFunc(echo), false, nil)
	c := dial(t, addr)
	if got := where(t, c, bufio.NewReader(c), ""); got != "true" {
		t.Errorf("Front answered: %s", got)
	}
}

// Many clients at once, some of whom go away in the middle.
func TestManyAtOnce(t *testing.T) {
	addr := startServer(t, http.HandlerFunc(echo), false, nil)
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(deadline))
			r := bufio.NewReader(c)
			for k := range 20 {
				if i%5 == 0 && k == 10 {
					_, _ = io.WriteString(c, "GET /here HTTP/1.1\r\n")
					return
				}
				if _, err := fmt.Fprintf(c, "POST /here?%d HTTP/1.1\r\n%sContent-Length: 3\r\n\r\n%03d", i, host, k); err != nil {
					t.Error(err)
					return
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if want := fmt.Sprintf("POST /here?%d example.com \"%03d\"", i, k); err != nil || !strings.HasPrefix(string(body), want) {
					t.Errorf("%v, %s, want %s", err, body, want)
					return
				}
			}
		})
	}
	clients.Wait()
}
