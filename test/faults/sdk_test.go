package faults

import (
	"encoding/json"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

// sdkClient is a subscriber with the public Go SDK, for the same promises: it shows that our own client is not kind.
type sdkClient struct {
	client   *centrifuge.Client
	connects atomic.Int64

	mu      sync.Mutex
	records []*record
	broken  string
}

// startSDK connects the SDK to a node, or a load balancer, and subscribes. It is closed at the test's end.
func startSDK(t *testing.T, name, url string, channels ...string) *sdkClient {
	t.Helper()
	s := &sdkClient{}
	s.client = centrifuge.NewJsonClient(url, centrifuge.Config{Token: signed(t, name), Name: "go", HandshakeTimeout: dialWait,
		MinReconnectDelay: reconnectMin, MaxReconnectDelay: reconnectMax, Header: http.Header{"X-Forwarded-For": {"10.1.1.1"}}})
	t.Cleanup(s.client.Close)
	s.client.OnConnected(func(centrifuge.ConnectedEvent) { s.connects.Add(1) })
	s.client.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		if e.Code != 0 { // 0: closed by us
			s.mu.Lock()
			defer s.mu.Unlock()
			s.broken = e.Reason
		}
	})
	for _, channel := range channels {
		sub, err := s.client.NewSubscription(channel)
		if err != nil {
			t.Fatal(err)
		}
		s.follow(sub, &record{client: name + " (SDK)", channel: channel})
		if err := sub.Subscribe(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.client.Connect(); err != nil {
		t.Fatal(err)
	}
	return s
}

// follow records what the SDK says of one subscription; its events come one at a time and in order.
func (s *sdkClient) follow(sub *centrifuge.Subscription, r *record) {
	s.records = append(s.records, r)
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.StreamPosition == nil {
			r.fault("subscribed without a position")
			return
		}
		r.resumed(e.WasRecovering, e.Recovered, e.StreamPosition.Epoch, e.StreamPosition.Offset)
	})
	sub.OnSubscribing(func(e centrifuge.SubscribingEvent) {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.leave()
		if e.Code >= 2500 {
			r.unsubscribes++
		}
	})
	sub.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.Code >= 1000 { // below: we did it ourselves
			s.broken = "unsubscribed: " + e.Reason
		}
		r.leave()
	})
	sub.OnPublication(func(e centrifuge.PublicationEvent) {
		var m message
		err := json.Unmarshal(e.Data, &m)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			r.fault("data %q", e.Data)
			return
		}
		r.heard(e.Offset, m.N)
	})
}

func (s *sdkClient) look(f func(*record)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		f(r)
	}
}

func (s *sdkClient) complaint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

func (s *sdkClient) reconnected() int64 { return max(0, s.connects.Load()-1) }
