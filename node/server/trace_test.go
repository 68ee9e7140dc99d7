package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"tideline/shared/bus"
	"tideline/shared/trace"
	"tideline/shared/trace/otlp"
	"tideline/test/otlptest"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	parent  = "00-" + traceID + "-b7ad6b7169203331-01"
)

// A server's request keeps its trace, and what the node recorded is sent before it ends.
func TestTheServerAPICarriesTracesOn(t *testing.T) {
	redis := miniredis.RunT(t)
	for _, on := range []bool{false, true} {
		collector := otlptest.Start(t)
		c := Config{NodeID: "n1", Stage: "test", RedisURL: "redis://" + redis.Addr(), TokenSecrets: strings.Repeat("x", 32), Scheme: "http", APIKeys: strings.Repeat("k", 32)}
		if on {
			c.Tracing = otlp.Settings{URL: collector.URL + "/v1/traces"}
		}
		var listeners []net.Listener
		for range 2 {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			listeners = append(listeners, l)
		}
		n, err := Open(t.Context(), c, listeners[0], listeners[1], slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		await(t, "ready", func() bool { return n.State() == Ready })
		r, err := http.NewRequest("POST", "http://"+listeners[1].Addr().String()+"/api/publish", strings.NewReader(`{"channel":"chat:a","data":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-API-Key", c.APIKeys)
		r.Header.Set("Traceparent", parent)
		res, err := http.DefaultClient.Do(r)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%v %v", res, err)
		}
		res.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		b, err := bus.Open(t.Context(), bus.Options{URL: c.RedisURL, Stage: c.Stage})
		if err != nil {
			t.Fatal(err)
		}
		pubs, _, err := b.History(t.Context(), "chat:a", bus.Page{Limit: 1, Reverse: true})
		if err != nil || len(pubs) != 1 || !strings.HasPrefix(pubs[0].Tags[trace.Tag], "00-"+traceID) || (pubs[0].Tags[trace.Tag] == parent) == on {
			t.Errorf("recording %v: %+v, %v", on, pubs, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		spans := collector.Trace(traceID)
		if !on {
			if collector.Requests() > 0 {
				t.Error("spans were sent, and nobody asked for them")
			}
			continue
		}
		if len(spans) != 2 || spans[0].Name != "publish chat" || spans[1].Name != "server API" || spans[0].Parent != spans[1].ID || spans[1].Parent != "b7ad6b7169203331" {
			t.Errorf("%+v", spans)
		}
	}
}
