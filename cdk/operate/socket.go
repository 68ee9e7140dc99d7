package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// line is a publication or a (re)subscription that a socket heard.
type line struct {
	data                     []byte
	subscribed               bool
	wasRecovering, recovered bool
}

// socket is a visitor's connection with the public client, on one channel.
type socket struct {
	client *centrifuge.Client
	node   chan string
	lines  chan line
	sub    *centrifuge.Subscription
	failed chan error
}

// queued bounds what a socket heard and nobody has looked at; verify says a few words only, in a room where others may talk.
const queued = 1024

// connect opens a socket for a visitor, with its cookies, and subscribes to a channel. Callbacks never block: what is not looked at is dropped.
func connect(b *visitor, channel string) (*socket, error) {
	s := &socket{node: make(chan string, 16), lines: make(chan line, queued), failed: make(chan error, 16)}
	s.client = centrifuge.NewJsonClient("ws"+strings.TrimPrefix(b.url, "http")+"/connection/websocket", centrifuge.Config{
		Token: b.Token, CookieJar: b.jar, Header: http.Header{"Origin": {b.url}}, MinReconnectDelay: 50 * time.Millisecond})
	s.client.OnConnected(func(e centrifuge.ConnectedEvent) {
		var about struct{ Node string }
		_ = json.Unmarshal(e.Data, &about) // an answer without a node is reported as ""
		offer(s.node, about.Node)
	})
	s.client.OnError(func(e centrifuge.ErrorEvent) { offer(s.failed, e.Error) })
	s.client.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		offer(s.failed, fmt.Errorf("disconnected: %d %s", e.Code, e.Reason))
	})
	sub, err := s.client.NewSubscription(channel, centrifuge.SubscriptionConfig{Recoverable: true, Positioned: true})
	if err != nil {
		s.client.Close()
		return nil, err
	}
	s.sub = sub
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		offer(s.lines, line{subscribed: true, wasRecovering: e.WasRecovering, recovered: e.Recovered})
	})
	sub.OnPublication(func(e centrifuge.PublicationEvent) { offer(s.lines, line{data: e.Data}) })
	sub.OnError(func(e centrifuge.SubscriptionErrorEvent) { offer(s.failed, e.Error) })
	if err := sub.Subscribe(); err != nil {
		s.client.Close()
		return nil, err
	}
	return s, s.client.Connect()
}

func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// connected waits for the connect reply and answers the node's name.
func (s *socket) connected(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, heard)
	defer cancel()
	select {
	case node := <-s.node:
		return node, nil
	case err := <-s.failed:
		return "", err
	case <-ctx.Done():
		return "", fmt.Errorf("no connect reply within %v", heard)
	}
}

// hear waits for a line that is wanted; others are passed over.
func (s *socket) hear(ctx context.Context, what string, wanted func(line) bool) (line, error) {
	ctx, cancel := context.WithTimeout(ctx, heard)
	defer cancel()
	for {
		select {
		case l := <-s.lines:
			if wanted(l) {
				return l, nil
			}
		case <-ctx.Done():
			select {
			case err := <-s.failed:
				return line{}, fmt.Errorf("%s: %w", what, err)
			default:
			}
			return line{}, fmt.Errorf("%s: not heard within %v", what, heard)
		}
	}
}

func subscribed(l line) bool { return l.subscribed }

func says(text string) func(line) bool {
	return func(l line) bool { return strings.Contains(string(l.data), text) }
}
