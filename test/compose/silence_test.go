package compose

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/shared/limit"
	"tideline/test/fleet"
	"tideline/test/port"
)

const (
	// nginxDefault is how long nginx lets a connection be silent that nothing is configured for.
	nginxDefault = 60 * time.Second
	// shortIdle stands here for the two minutes that are configured.
	shortIdle = 12 * time.Second
)

// A node's pings would hide whose timeout holds: behind the shipped configuration stands a server that says nothing. What is configured is the AWS load
// balancer's timeout, and it governs: with a tenth of it a silent socket is gone after that tenth, long before nginx's own timeout.
func TestSilentSockets(t *testing.T) {
	t.Parallel()
	silent := silentServer(t)
	front := port.Free(t)
	replace := map[string]string{"listen 8080;": "listen 127.0.0.1:" + front + ";"}
	for _, timeout := range []string{"proxy_read_timeout", "proxy_send_timeout"} {
		replace[fmt.Sprintf("%s %ds;", timeout, int(limit.IdleTimeout/time.Second))] = fmt.Sprintf("%s %ds;", timeout, int(shortIdle/time.Second))
	}
	for _, name := range []string{"node-1:8000", "node-2:8000", "session:8080", "todos:8080", "tasks:8080"} {
		replace["server "+name] = "server " + silent
	}
	startNginx(t, "nginx.conf", replace)
	var left *websocket.Conn
	began := time.Now()
	fleet.Poll(t, "nginx lets sockets through", func() (err error) {
		began = time.Now()
		left, err = dialSilent(front)
		return err
	})
	defer left.Close()
	if err := left.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := left.SetReadDeadline(began.Add(nginxDefault - time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, data, err := left.ReadMessage(); err != nil || string(data) != "hello" {
		t.Fatalf("%q, %v", data, err)
	}
	_, _, err := left.ReadMessage()
	took := time.Since(began)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("a silent socket is there after %v: it is not the configured timeout that holds", took)
	}
	if took < shortIdle {
		t.Errorf("a silent socket was closed after %v (%v), configured are %v", took, err, shortIdle)
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
