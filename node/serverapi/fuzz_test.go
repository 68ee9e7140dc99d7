package serverapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"

	"tideline/node/conn"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// fuzzAPI is an API whose node takes everything in, over the embedded Redis.
func fuzzAPI(f *testing.F) http.Handler {
	f.Helper()
	mr := miniredis.NewMiniRedis()
	mr.ClockTTL(true)
	if err := mr.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(mr.Close)
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Open(f.Context(), bus.Options{URL: "redis://" + mr.Addr(), Stage: "fuzz", Log: log})
	if err != nil {
		f.Fatal(err)
	}
	table, err := channel.Parse([]byte(spaces))
	if err != nil {
		f.Fatal(err)
	}
	tokens, err := token.NewSecrets([]string{secret}, nil)
	if err != nil {
		f.Fatal(err)
	}
	sockets, err := conn.New(conn.Options{NodeID: "n1", Bus: b, Table: table, Verifier: tokens, Metrics: prometheus.NewRegistry(), Log: log})
	if err != nil {
		f.Fatal(err)
	}
	keys, err := ParseKeys(strings.ReplaceAll(key, " ", "-"))
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sockets.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		<-done
		b.Close()
	})
	mux := http.NewServeMux()
	New(Options{Sockets: sockets, Bus: b, Keys: keys, Log: log}).Register(mux)
	return mux
}

// FuzzRequest sends any body to any method. Nothing of it is an internal error, and every answer has the form that libraries read.
func FuzzRequest(f *testing.F) {
	api := fuzzAPI(f)
	for _, seed := range []struct{ method, body string }{
		{"publish", `{"channel":"open:a","data":{"n":1},"tags":{"a":"b"},"idempotency_key":"i","version":1,"version_epoch":"e","key":"k"}`},
		{"publish", `{"channel":"bytes:a","b64data":"/w=="}`}, {"publish", `{"channel":"room:a","data":1}`},
		{"broadcast", `{"channels":["open:a","nope:a"],"data":"x"}`},
		{"subscribe", `{"user":"u","client":"c","session":"s","channel":"open:a","info":1,"data":2,"recover_since":{"offset":1,"epoch":"e"},"override":{"presence":{"value":true}}}`},
		{"unsubscribe", `{"user":"u","channel":"open:a","unsubscribe":{"code":2500,"reason":"r"}}`},
		{"disconnect", `{"user":"u","whitelist":["c"],"disconnect":{"code":4000,"reason":"r","reconnect":true}}`},
		{"refresh", `{"user":"u","expire_at":99999999999}`}, {"send", `{"client":"c","b64data":"MQ=="}`},
		{"history", `{"channel":"open:a","limit":-1,"since":{"offset":18446744073709551615,"epoch":""},"reverse":true}`}, {"history_remove", `{"channel":"open:a"}`},
		{"presence", `{"channel":"open:a"}`}, {"presence_stats", `{"channel":"open:a"}`}, {"channels", `{"pattern":"{a,b}[!c-d]?\\**"}`},
		{"connections", `{"user":"u","channel":"open:a"}`}, {"info", `{}`}, {"rpc", `{"method":"connections","params":{"code":1}}`},
		{"batch", `{"commands":[{"info":{}},{"publish":{}}],"parallel":true}`}, {"", `{"method":"info","params":{}}{"method":"publish"}`},
	} {
		f.Add(seed.method, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, method string, body []byte) {
		if strings.ContainsAny(method, "/?#% ") || strings.Trim(method, ".") == "" && method != "" {
			return // another path, which the mux redirects or refuses
		}
		r := httptest.NewRequest(http.MethodPost, "/api", bytes.NewReader(body))
		if method != "" {
			r.URL.Path = "/api/" + method
		}
		r.Header.Set("X-API-Key", strings.ReplaceAll(key, " ", "-"))
		w := httptest.NewRecorder()
		began := time.Now()
		api.ServeHTTP(w, r)
		// On a machine that stood still the work was out of time, which is the one internal error that there may be.
		late := time.Since(began) > limit.CommandBudget/2
		if w.Code != http.StatusOK && w.Code != http.StatusNotFound {
			t.Fatalf("%s %q: %d %s", method, body, w.Code, w.Body)
		}
		d := json.NewDecoder(w.Body)
		for n := 0; ; n++ {
			var reply struct {
				Result  json.RawMessage              `json:"result"`
				Error   *Error                       `json:"error"`
				Replies []map[string]json.RawMessage `json:"replies"`
			}
			if err := d.Decode(&reply); err == io.EOF && n > 0 {
				return
			} else if err != nil {
				t.Fatalf("%s %q: answer %d: %v", method, body, n, err)
			}
			if (reply.Result == nil) == (reply.Error == nil) && len(reply.Replies) == 0 {
				t.Fatalf("%s %q: neither a result nor an error", method, body)
			}
			if late && reply.Error != nil && reply.Error.Code == errInternal.Code {
				continue
			}
			if reply.Error != nil && (reply.Error.Code <= errInternal.Code || reply.Error.Message == "") {
				t.Fatalf("%s %q: %v", method, body, reply.Error)
			}
		}
	})
}
