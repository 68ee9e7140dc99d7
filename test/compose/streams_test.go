package compose

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"tideline/test/fleet"
)

// streams holds what nginx.conf does for the HTTP transports: nothing is buffered, requests without the cookie reach any node, and a stream
// that its reader leaves is closed behind nginx too.
func streams(t *testing.T, s *topology) {
	v := s.visit(t)
	subscribe := `{"id":2,"subscribe":{"channel":"chat:streams"}}`
	first := fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`+"\n", v.token) + subscribe
	watch := fmt.Sprintf(`{"token":%q,"subs":{"chat:streams":{}}}`, v.token)
	for name, open := range map[string]func() (*http.Request, error){
		"http_stream": func() (*http.Request, error) {
			return http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/connection/http_stream", strings.NewReader(first))
		},
		"sse": func() (*http.Request, error) {
			return http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/connection/sse?"+url.Values{"cf_connect": {first}}.Encode(), nil)
		},
		"uni_sse": func() (*http.Request, error) {
			return http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/connection/uni_sse?"+url.Values{"cf_connect": {watch}}.Encode(), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := open()
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * patience}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK || res.Header.Get("Content-Length") != "" {
				t.Fatalf("%s %v", res.Status, res.Header)
			}
			lines := bufio.NewScanner(res.Body)
			line := func(part string) string {
				t.Helper()
				for lines.Scan() {
					if strings.Contains(lines.Text(), part) {
						return lines.Text()
					}
				}
				t.Fatalf("it ends without %s: %v", part, lines.Err())
				return ""
			}
			connected := line(`"connect":`)
			var reply struct {
				Connect struct{ Client, Session, Node string }
			}
			if err := json.Unmarshal([]byte(strings.TrimPrefix(connected, "data: ")), &reply); err != nil {
				t.Fatal(err)
			}
			if name == "uni_sse" {
				v.connect(nil, "chat:streams") // somebody has to speak
				v.says("chat:streams", "spoken")
				line("spoken")
				return
			}
			line(`"subscribe":`)
			for i := range 10 {
				text := fmt.Sprintf("%s %d", name, i)
				body, err := json.Marshal(map[string]string{"session": reply.Connect.Session, "node": reply.Connect.Node,
					"data": fmt.Sprintf(`{"id":%d,"publish":{"channel":"chat:streams","data":{"text":%q}}}`, i+3, text)})
				if err != nil {
					t.Fatal(err)
				}
				res, err := fleet.Client(nil).Post(s.url+"/emulation", "application/json", strings.NewReader(string(body)))
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != http.StatusNoContent {
					t.Fatalf("commands without the cookie: %s", res.Status)
				}
				line(text) // before anything else comes that would fill a buffer
			}
			res.Body.Close()
			fleet.Poll(t, "the node knows that its reader has left", func() error {
				body, err := json.Marshal(map[string]string{"session": reply.Connect.Session, "node": reply.Connect.Node, "data": "{}"})
				if err != nil {
					return err
				}
				res, err := fleet.Client(nil).Post(s.url+"/emulation", "application/json", strings.NewReader(string(body)))
				if err != nil {
					return err
				}
				res.Body.Close()
				if res.StatusCode != http.StatusNotFound {
					return fmt.Errorf("commands for it: %s", res.Status)
				}
				return nil
			})
		})
	}
}
