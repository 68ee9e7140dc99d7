package canary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/gorilla/websocket"

	"tideline/shared/channel"
	"tideline/shared/limit"
)

const (
	// dialTimeout bounds connection and upgrade, and the two answers after it.
	dialTimeout = 5 * time.Second
	// backoffFirst and backoffMost bound the wait before the node's socket is opened again: full jitter under a bound that doubles.
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
	// frameBytes is the longest frame that is read.
	frameBytes = 64 << 10
	// quiet is how long the socket may say nothing: the server's pings come more often.
	quiet = limit.PingInterval + limit.PongTimeout
)

// hello authenticates by the upgrade's header, and subscribes.
const hello = `{"id":1,"connect":{"name":"canary"}}` + "\n" + `{"id":2,"subscribe":{"channel":"` + channel.Canary + `"}}`

// listen keeps a socket open until ctx ends.
func (c *Canary) listen(ctx context.Context) {
	for bound := backoffFirst; ctx.Err() == nil; bound = min(2*bound, backoffMost) {
		began := time.Now()
		if err := c.socket(ctx); ctx.Err() == nil {
			c.o.Log.Debug("canary's socket closed", "error", err)
		}
		if time.Since(began) > quiet { // it stood
			bound = backoffFirst
		}
		pause(ctx, rand.N(bound))
	}
}

// socket opens a socket, subscribes, and hears, until it is lost or ctx ends.
func (c *Canary) socket(ctx context.Context) error {
	dialer := websocket.Dialer{HandshakeTimeout: dialTimeout, NetDialContext: dial}
	ws, _, err := dialer.DialContext(ctx, c.o.URL, http.Header{"Authorization": {"Bearer " + c.o.Token}})
	if err != nil {
		return fmt.Errorf("dial %s: %w", c.o.URL, err)
	}
	defer ws.Close()
	defer context.AfterFunc(ctx, func() { ws.Close() })()
	ws.SetReadLimit(frameBytes)
	if err := say(ws, hello); err != nil {
		return err
	}
	subscribed, wait := false, dialTimeout
	for {
		if err := ws.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		_, data, err := ws.ReadMessage()
		if err != nil {
			return err
		}
		now := time.Now()
		decoder := protocol.NewJSONReplyDecoder(data)
		for {
			reply, err := decoder.Decode()
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if reply != nil {
				if err := c.reply(ws, reply, now); err != nil {
					return err
				}
				subscribed = subscribed || reply.Subscribe != nil
			}
			if err != nil {
				break
			}
		}
		if subscribed {
			wait = quiet
		}
	}
}

// reply takes one reply or push.
func (c *Canary) reply(ws *websocket.Conn, r *protocol.Reply, now time.Time) error {
	switch {
	case r.Error != nil:
		return fmt.Errorf("command %d: %d %s", r.Id, r.Error.Code, r.Error.Message)
	case r.Id != 0:
	case r.Push == nil:
		return say(ws, "{}") // a ping
	case r.Push.Unsubscribe != nil:
		return fmt.Errorf("unsubscribed: %d %s", r.Push.Unsubscribe.Code, r.Push.Unsubscribe.Reason)
	case r.Push.Pub != nil:
		var m message
		if json.Unmarshal(r.Push.Pub.Data, &m) == nil && m.Type == messageType {
			c.hear(now, time.UnixMilli(m.Time))
		}
	}
	return nil
}

func say(ws *websocket.Conn, text string) error {
	if err := ws.SetWriteDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	return ws.WriteMessage(websocket.TextMessage, []byte(text))
}

// dial connects to an address of this machine. One that names no interface is reached by the loopback, the older one first: where only the
// newer is listened on, the older refuses at once.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	hosts := []string{host}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var failed error
	for _, h := range hosts {
		c, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(h, port))
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}
