package compose

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/shared/limit"
	"tideline/test/fleet"
)

// nginxDefault is how long nginx lets a connection be silent that nothing is configured for.
const nginxDefault = 60 * time.Second

// A node's pings would hide whose timeout holds: behind the shipped configuration stands a server that says nothing. A socket that is silent for longer
// than nginx's own timeout is still there, and one that is silent for the configured time, which is the AWS load balancer's, too, is gone.
func TestSilentSockets(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	silent := silentServer(t)
	port := freePort(t)
	replace := map[string]string{"listen 8080;": "listen 127.0.0.1:" + port + ";"}
	for _, name := range []string{"node-1:8000", "node-2:8000", "session:8080", "todos:8080", "tasks:8080"} {
		replace["server "+name] = "server " + silent
	}
	startNginx(t, "nginx.conf", replace)
	var kept, left *websocket.Conn
	fleet.Poll(t, "nginx lets sockets through", func() (err error) {
		if kept == nil {
			kept, err = dialSilent(port)
		}
		return err
	})
	left, err := dialSilent(port)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	defer left.Close()
	began := time.Now()
	gone := make(chan error, 1)
	go func() { // until nginx closes, or the test's end does
		_ = left.SetReadDeadline(began.Add(limit.IdleTimeout + patience)) // or the read says that it failed
		_, _, err := left.ReadMessage()
		gone <- err
	}()

	time.Sleep(time.Until(began.Add(nginxDefault + 5*time.Second))) // the very thing that is tested
	if err := kept.WriteMessage(websocket.TextMessage, []byte("still here")); err != nil {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if err := kept.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, data, err := kept.ReadMessage(); err != nil || string(data) != "still here" {
		t.Errorf("after %v: %q, %v", time.Since(began).Round(time.Second), data, err)
	}

	err = <-gone
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("a silent socket is there after %v", time.Since(began))
	}
	if d := time.Since(began); d < limit.IdleTimeout-2*time.Second {
		t.Errorf("a silent socket was closed after %v (%v), nodes and page count on %v", d.Round(time.Second), err, limit.IdleTimeout)
	}
}

// silentServer answers every message with the same, and says nothing by itself.
func silentServer(t *testing.T) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, data, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, data) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func dialSilent(port string) (*websocket.Conn, error) {
	c, res, err := websocket.DefaultDialer.Dial("ws://127.0.0.1:"+port+"/connection/websocket", nil)
	if res != nil {
		res.Body.Close()
	}
	return c, err
}
