package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

// floor is what a publication costs at least in Go with these two libraries: it is prepared once and written to each subscriber by the
// goroutine that heard it. A client that doesn't read blocks everybody.
type floor struct {
	redis *redis.Client
	sub   *redis.PubSub
	up    websocket.Upgrader

	mu       sync.Mutex
	channels map[string]*subscribers
}

type subscribers struct {
	conns     map[*websocket.Conn]struct{}
	confirmed chan struct{} // closed when Redis has confirmed the subscription
}

// readBuffer is the size of each connection's read buffer, in bytes. Write buffers are pooled.
const readBuffer = 512

func newFloor(addr string) (*floor, error) {
	f := &floor{redis: redis.NewClient(&redis.Options{Addr: addr, Protocol: 2}), channels: map[string]*subscribers{},
		up: websocket.Upgrader{ReadBufferSize: readBuffer, WriteBufferPool: &sync.Pool{}, CheckOrigin: func(*http.Request) bool { return true }}}
	f.sub = f.redis.Subscribe(context.Background())
	go f.receive()
	return f, f.redis.Ping(context.Background()).Err()
}

func (f *floor) register(mux *http.ServeMux) { mux.HandleFunc("GET /ws", f.serve) }

func (f *floor) publish(channel string, data []byte) error {
	return f.redis.Publish(context.Background(), channel, data).Err()
}

// serve subscribes the connection to the channel that the request names, and says "ok" when it hears it.
func (f *floor) serve(w http.ResponseWriter, r *http.Request) {
	c, err := f.up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	channel := r.URL.Query().Get("channel")
	// The HTTP server's goroutine and buffers end with this function.
	go func() {
		defer c.Close()
		s, err := f.enter(channel, c)
		if err != nil {
			return
		}
		defer f.leave(channel, c)
		<-s.confirmed
		f.mu.Lock()
		err = c.WriteMessage(websocket.TextMessage, []byte("ok"))
		s.conns[c] = struct{}{}
		f.mu.Unlock()
		for err == nil {
			_, _, err = c.NextReader()
		}
	}()
}

func (f *floor) enter(channel string, c *websocket.Conn) (*subscribers, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.channels[channel]
	if s != nil {
		return s, nil
	}
	s = &subscribers{conns: map[*websocket.Conn]struct{}{}, confirmed: make(chan struct{})}
	f.channels[channel] = s
	return s, f.sub.Subscribe(context.Background(), channel)
}

func (f *floor) leave(channel string, c *websocket.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.channels[channel].conns, c)
}

func (f *floor) receive() {
	for {
		item, err := f.sub.Receive(context.Background())
		if err != nil {
			panic(err) // Redis is there as long as the benchmark
		}
		switch item := item.(type) {
		case *redis.Subscription:
			f.mu.Lock()
			if s := f.channels[item.Channel]; s != nil {
				close(s.confirmed)
			}
			f.mu.Unlock()
		case *redis.Message:
			f.deliver(item)
		}
	}
}

func (f *floor) deliver(m *redis.Message) {
	p, err := websocket.NewPreparedMessage(websocket.TextMessage, []byte(m.Payload))
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.channels[m.Channel]; s != nil {
		for c := range s.conns {
			_ = c.WritePreparedMessage(p) // its reader notices
		}
	}
}
