package broadcast_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tideline/functions/api"
	"tideline/functions/broadcast"
	"tideline/shared/bus"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/test/leak"
	"tideline/test/redistest"
)

func TestMain(m *testing.M) { leak.Main(m) }

func newBus(t *testing.T) (*bus.Bus, *redistest.Server) {
	t.Helper()
	r := redistest.Start(t)
	b, err := bus.Open(t.Context(), bus.Options{URL: r.URL(), Stage: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, r
}

func newBroadcast(t *testing.T, p broadcast.Publisher) *broadcast.Broadcast {
	t.Helper()
	b, err := broadcast.New(broadcast.Options{Publisher: p})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func heard(t *testing.T, b *bus.Bus, channel string) []string {
	t.Helper()
	pubs, _, err := b.History(t.Context(), channel, bus.Page{Limit: -1})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, p := range pubs {
		out = append(out, string(p.Data))
	}
	return out
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("heard %v, want %v", got, want)
	}
}

func TestInvokedDirectlyItAnswersEachPublication(t *testing.T) {
	t.Parallel()
	r, _ := newBus(t)
	b := newBroadcast(t, r)
	request := `{"publications":[
		{"channel":"system","data":{ "text" : "hello" },"id":"a"},
		{"channel":"nowhere:x","data":1},
		{"channel":"system ","data":1},
		{"channel":"system","data":null},
		{"channel":"system"},
		{"channel":"system","data":1,"id":"` + strings.Repeat("i", limit.PublicationIDBytes+1) + `"},
		{"channel":"user:#ann","data":[1,2]}]}`
	ctx := api.WithRequestID(t.Context(), "req-1")
	out, err := b.Handle(ctx, json.RawMessage(request))
	if err != nil {
		t.Fatal(err)
	}
	res := out.(broadcast.Response)
	var codes []string
	for _, x := range res.Results {
		switch {
		case x.Error != nil:
			codes = append(codes, x.Error.Code)
		case x.Position.Epoch != "" && x.Position.Offset == 1:
			codes = append(codes, "ok")
		}
	}
	expect(t, codes, "ok", "unknown-namespace", "invalid-channel", "invalid-data", "invalid-data", "invalid-id", "ok")
	if res.Published != 2 || res.Failed != 5 {
		t.Errorf("%d published, %d failed", res.Published, res.Failed)
	}
	expect(t, heard(t, r, "system"), `{"text":"hello"}`)
	expect(t, heard(t, r, "user:#ann"), `[1,2]`)
	// Again: with ids of its own or of the invocation, nothing is published twice.
	out, err = b.Handle(ctx, json.RawMessage(request))
	if err != nil || !out.(broadcast.Response).Results[0].Duplicate || !out.(broadcast.Response).Results[6].Duplicate {
		t.Errorf("again: %+v, %v", out, err)
	}
	expect(t, heard(t, r, "user:#ann"), `[1,2]`)
}

func TestWhatIsPublishedIntoAChatIsStamped(t *testing.T) {
	t.Parallel()
	r, _ := newBus(t)
	b := newBroadcast(t, r)
	if _, err := b.Handle(t.Context(), json.RawMessage(`{"publications":[{"channel":"chat:lobby","data":{"text":"hi"},"id":"x"}]}`)); err != nil {
		t.Fatal(err)
	}
	var s struct {
		ID, User, Node string
		Time           int64
		Data           struct{ Text string }
	}
	if err := json.Unmarshal([]byte(heard(t, r, "chat:lobby")[0]), &s); err != nil || s.ID != "x" || s.User != "" || s.Node != "broadcast" || s.Data.Text != "hi" ||
		time.Since(time.UnixMilli(s.Time)) > time.Minute {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestEventBridgeAndSNSPublishOnceThoughTheyDeliverTwice(t *testing.T) {
	t.Parallel()
	r, _ := newBus(t)
	b := newBroadcast(t, r)
	inner := `{"publications":[{"channel":"system","data":1},{"channel":"system","data":2},{"channel":"nowhere:x","data":3}]}`
	quoted, _ := json.Marshal(inner)
	for range 2 {
		for _, e := range []string{
			`{"version":"0","id":"ev-1","detail-type":"tideline.broadcast","source":"tideline.dev","detail":` + inner + `}`,
			`{"Records":[{"EventSource":"aws:sns","Sns":{"MessageId":"m-1","Message":` + string(quoted) + `}}]}`,
		} {
			if _, err := b.Handle(t.Context(), json.RawMessage(e)); err != nil {
				t.Fatal(err)
			}
		}
	}
	expect(t, heard(t, r, "system"), "1", "2", "1", "2")
	for _, bad := range []string{
		`{"id":"ev-2","detail-type":"something.else","detail":` + inner + `}`,
		`{"Records":[{"EventSource":"aws:s3"}]}`, `{"Records":7}`, `[]`, `{}`, `{"publications":[]}`, `{"publications":[{"channel":"system","data":1}],"extra":1}`,
		`{"publications":[{"channel":"system","channel":"x","data":1}]}`,
		`{"publications":[` + strings.Repeat(`{"channel":"system","data":1},`, broadcast.PublicationsMax) + `{"channel":"system","data":1}]}`,
	} {
		if _, err := b.Handle(t.Context(), json.RawMessage(bad)); !errors.Is(err, broadcast.ErrRequest) {
			t.Errorf("%.80s: %v", bad, err)
		}
	}
	// What a door without answers can't understand is not tried again.
	if _, err := b.Handle(t.Context(), json.RawMessage(`{"id":"ev-3","detail-type":"tideline.broadcast","detail":{"publications":"x"}}`)); err != nil {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	r, _ := newBus(t)
	b := newBroadcast(t, r)
	request := func(bytes, n int) broadcast.Response {
		one := `{"channel":"system","data":"` + strings.Repeat("x", bytes-2) + `"}`
		out, err := b.Handle(api.WithRequestID(t.Context(), fmt.Sprint(bytes, n)), json.RawMessage(`{"publications":[`+strings.Repeat(one+",", n-1)+one+`]}`))
		if err != nil {
			t.Fatal(err)
		}
		return out.(broadcast.Response)
	}
	if res := request(limit.DataBytes, 1); res.Published != 1 {
		t.Errorf("%d bytes: %+v", limit.DataBytes, res.Results[0].Error)
	}
	if res := request(limit.DataBytes+1, 1); res.Failed != 1 || res.Results[0].Error.Code != "too-large" {
		t.Errorf("one byte more: %+v", res.Results[0])
	}
	if res := request(100, broadcast.PublicationsMax); res.Published != broadcast.PublicationsMax {
		t.Errorf("%d publications: %+v", broadcast.PublicationsMax, res)
	}
}

func TestRedisAwayFailsTheDoorsThatTryAgainAndTellsTheOthers(t *testing.T) {
	t.Parallel()
	r, server := newBus(t)
	b := newBroadcast(t, r)
	server.Stop()
	inner := `{"publications":[{"channel":"system","data":1},{"channel":"system","data":2}]}`
	out, err := b.Handle(t.Context(), json.RawMessage(inner))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range out.(broadcast.Response).Results {
		if x.Error == nil || x.Error.Code != "unavailable" || !x.Error.Temporary {
			t.Errorf("%+v", x)
		}
	}
	e := json.RawMessage(`{"id":"ev","detail-type":"tideline.broadcast","detail":` + inner + `}`)
	if _, err := b.Handle(t.Context(), e); err == nil {
		t.Error("an event that was not published is done with")
	}
	server.Restart()
	if _, err := b.Handle(t.Context(), e); err != nil {
		t.Error(err)
	}
	expect(t, heard(t, r, "system"), "1", "2")
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	r, _ := newBus(t)
	b := newBroadcast(t, r)
	if _, err := b.HTTP(broadcast.HTTPOptions{}); err == nil {
		t.Error("a door that is open to everybody")
	}
	secrets, err := token.NewSecrets([]string{strings.Repeat("s", 32)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	guarded, err := b.HTTP(broadcast.HTTPOptions{Verifier: secrets})
	if err != nil {
		t.Fatal(err)
	}
	byIAM, err := b.HTTP(broadcast.HTTPOptions{Authorized: true})
	if err != nil {
		t.Fatal(err)
	}
	call := func(h http.Handler, roles []string, body string) *httptest.ResponseRecorder {
		req := httptest.NewRequest("POST", "/", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		if roles != nil {
			bearer, err := secrets.Sign(token.Claims{User: "ann", Roles: roles, Expires: time.Now().Add(time.Minute)})
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		return rec
	}
	const body = `{"publications":[{"channel":"system","data":{"a":1},"id":"same"}]}`
	for _, c := range []struct {
		name   string
		h      http.Handler
		roles  []string
		body   string
		status int
	}{
		{"no token", guarded, nil, body, 401}, {"no operator", guarded, []string{"other"}, body, 403}, {"operator", guarded, []string{"operator"}, body, 200},
		{"by IAM", byIAM, nil, body, 200}, {"empty", byIAM, nil, `{"publications":[]}`, 422}, {"unknown field", byIAM, nil, `{"publications":[{"channel":"x","data":1,"to":2}]}`, 422},
		{"not JSON", byIAM, nil, `publications`, 400},
	} {
		if rec := call(c.h, c.roles, c.body); rec.Code != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, rec.Code, rec.Body, c.status)
		}
	}
	expect(t, heard(t, r, "system"), `{"a":1}`)
}
