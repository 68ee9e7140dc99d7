package serverapi

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/centrifugal/gocent/v3"

	"tideline/test/fleet"
)

// The public Go library sends its commands as lines to /api, with the key in Authorization.
func TestGo(t *testing.T) {
	f := start(t)
	a := connect(t, f.Nodes[1], "ann")
	a.subscribe("open:p")
	ctx := t.Context()
	c := gocent.New(gocent.Config{Addr: f.Nodes[0].Private + "/api", Key: key, HTTPClient: fleet.Client(nil)})

	res, err := c.Publish(ctx, "open:p", []byte(`{"n":1}`))
	if err != nil || res.Offset != 1 || res.Epoch == "" {
		t.Fatalf("%+v %v", res, err)
	}
	a.heard(`open:p 1 {"n":1}`)
	all, err := c.Broadcast(ctx, []string{"open:p", "nowhere:p"}, []byte(`{"n":2}`))
	if err != nil || len(all.Responses) != 2 || all.Responses[0].Result.Offset != 2 || all.Responses[1].Error.Code != 102 {
		t.Errorf("%+v %v", all, err)
	}
	a.heard(`open:p 2 {"n":2}`)
	var refused *gocent.Error
	if _, err := c.Publish(ctx, "nowhere:p", []byte(`1`)); !errors.As(err, &refused) || refused.Code != 102 || refused.Message != "unknown channel" {
		t.Errorf("%v", err)
	}
	if _, err := c.Publish(ctx, "open:p", []byte(`1`), gocent.WithSkipHistory(true)); !errors.As(err, &refused) || refused.Code != 108 {
		t.Errorf("%v", err)
	}
	var status gocent.ErrStatusCode
	if _, err := gocent.New(gocent.Config{Addr: f.Nodes[0].Private + "/api", Key: key + "x", HTTPClient: fleet.Client(nil)}).Info(ctx); !errors.As(err, &status) || status.Code != 401 {
		t.Errorf("%v", err)
	}

	// With every option that the library has and the namespace agrees to.
	err = c.Subscribe(ctx, "open:s", "ann", gocent.WithSubscribeInfo(json.RawMessage(`{"seat":7}`)), gocent.WithPresence(true), gocent.WithJoinLeave(true), gocent.WithPosition(true),
		gocent.WithRecover(true), gocent.WithSubscribeClient(a.id), gocent.WithSubscribeData(json.RawMessage(`{"why":"invited"}`)))
	if err != nil {
		t.Fatal(err)
	}
	a.heard(`subscribed open:s {"why":"invited"}`)
	members, err := c.Presence(ctx, "open:s")
	if m := members.Presence[a.id]; err != nil || m.User != "ann" || string(m.ChanInfo) != `{"seat":7}` {
		t.Errorf("%+v %v", members, err)
	}
	if stats, err := c.PresenceStats(ctx, "open:s"); err != nil || stats.NumClients != 1 || stats.NumUsers != 1 {
		t.Errorf("%+v %v", stats, err)
	}
	if err := c.Unsubscribe(ctx, "open:s", "ann", gocent.WithUnsubscribeClient(a.id)); err != nil {
		t.Error(err)
	}
	a.heard("unsubscribed open:s")
	channels, err := c.Channels(ctx, gocent.WithPattern("open:*"))
	if _, there := channels.Channels["open:p"]; err != nil || !there || len(channels.Channels) != 1 {
		t.Errorf("%+v %v", channels, err)
	}
	fleet.Poll(t, "the next heartbeat", func() error {
		info, err := c.Info(ctx)
		if err != nil || len(info.Nodes) != 2 || info.Nodes[0].NumClients+info.Nodes[1].NumClients != 1 || info.Nodes[0].NumUsers+info.Nodes[1].NumUsers != 1 {
			return errors.Join(errors.New("another number of clients"), err)
		}
		return nil
	})

	page, err := c.History(ctx, "open:p", gocent.WithLimit(gocent.NoLimit))
	if err != nil || len(page.Publications) != 2 || page.Offset != 2 || string(page.Publications[1].Data) != `{"n":2}` {
		t.Errorf("%+v %v", page, err)
	}
	page, err = c.History(ctx, "open:p", gocent.WithLimit(1), gocent.WithReverse(true), gocent.WithSince(&gocent.StreamPosition{Offset: 2, Epoch: page.Epoch}))
	if err != nil || len(page.Publications) != 1 || page.Publications[0].Offset != 1 {
		t.Errorf("%+v %v", page, err)
	}
	if err := c.HistoryRemove(ctx, "open:p"); err != nil {
		t.Error(err)
	}
	if page, err = c.History(ctx, "open:p", gocent.WithLimit(gocent.NoLimit)); err != nil || len(page.Publications) != 0 || page.Offset != 2 {
		t.Errorf("%+v %v", page, err)
	}

	pipe := c.Pipe()
	for _, err := range []error{pipe.AddPublish("open:p", []byte(`{"n":3}`)), pipe.AddPublish("nowhere:p", []byte(`1`)), pipe.AddInfo()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	replies, err := c.SendPipe(ctx, pipe)
	if err != nil || len(replies) != 3 || replies[0].Error != nil || replies[1].Error == nil || replies[2].Error != nil {
		t.Errorf("%+v %v", replies, err)
	}
	a.heard(`open:p 3 {"n":3}`)

	if err := c.Disconnect(ctx, "ann", gocent.WithDisconnectClientWhitelist([]string{a.id})); err != nil {
		t.Error(err)
	}
	if err := c.Disconnect(ctx, "ann", gocent.WithDisconnect(&gocent.Disconnect{Code: 4600, Reason: "moved house"})); err != nil {
		t.Error(err)
	}
	a.heard("disconnected 4600 moved house") // and not the first time
}
