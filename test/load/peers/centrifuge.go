package main

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/centrifugal/centrifuge"
)

// historyTTL is how long publications are kept, with HISTORY.
const historyTTL = 5 * time.Minute

// library is a thin server on the centrifuge library: everybody may connect and subscribe to everything.
type library struct {
	node    *centrifuge.Node
	history int
}

func newCentrifuge(addr, history string) (*library, error) {
	l := &library{}
	if history != "" {
		n, err := strconv.Atoi(history)
		if err != nil {
			return nil, err
		}
		l.history = n
	}
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	l.node = node
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: addr})
	if err != nil {
		return nil, err
	}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	if err != nil {
		return nil, err
	}
	node.SetBroker(broker)
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		// No queue for replies, as its documentation advises for memory.
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: "u"}, ReplyWithoutQueue: true}, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnSubscribe(func(_ centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
			done(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{EnableRecovery: l.history > 0, EnablePositioning: l.history > 0}}, nil)
		})
	})
	return l, node.Run()
}

func (l *library) register(mux *http.ServeMux) {
	mux.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(l.node, centrifuge.WebsocketConfig{
		ReadBufferSize: readBuffer, UseWriteBufferPool: true, ProcessCommandsOffReadLoop: true,
		CheckOrigin: func(*http.Request) bool { return true },
	}))
}

func (l *library) publish(channel string, data []byte) error {
	var options []centrifuge.PublishOption
	if l.history > 0 {
		options = append(options, centrifuge.WithHistory(l.history, historyTTL))
	}
	_, err := l.node.Publish(channel, data, options...)
	return err
}
