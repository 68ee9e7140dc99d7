package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"tideline/node/stream"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	groupName = "/aws/lambda/todos"
	arn       = "arn:aws:logs:eu-central-1:123456789012:log-group:" + groupName
	patience  = 30 * time.Second
)

// cloud is a loopback stand-in of CloudWatch Logs: DescribeLogGroups, and StartLiveTail's event stream.
type cloud struct {
	t        *testing.T
	config   aws.Config
	mu       sync.Mutex
	sessions int
	open     int
	most     int // open together
	refuse   string
	sent     map[string]chan struct{}                                                // by the id of a request
	script   func(session int, say func(kind, payload string), gone <-chan struct{}) // runs a session; the stream ends with it
}

func startCloud(t *testing.T, script func(int, func(kind, payload string), <-chan struct{})) *cloud {
	t.Helper()
	c := &cloud{t: t, script: script}
	server := httptest.NewServer(http.HandlerFunc(c.serve))
	// The SDK puts "stream-" in front of the host: whatever it asks for is here.
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	transport := &http.Transport{DialContext: dial}
	c.sent = make(map[string]chan struct{})
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
	})
	c.config = aws.Config{Region: "eu-central-1", BaseEndpoint: aws.String("http://logs.test"), HTTPClient: &http.Client{Transport: whole{c, transport}},
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""), Retryer: func() aws.Retryer { return aws.NopRetryer{} }}
	return c
}

// whole tells the cloud when a request has been written. To an answer that overtakes the end of its own request the SDK's client closes the request's
// body, and with it the connection: the session would end as it begins. A real one is too far away for that.
type whole struct {
	c         *cloud
	transport http.RoundTripper
}

func (w whole) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := sync.OnceFunc(func() { close(w.c.written(r)) })
	return w.transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { sent() }})))
}

// written is closed when the request has been written; the SDK signs each of its own.
func (c *cloud) written(r *http.Request) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := r.Header.Get("Amz-Sdk-Invocation-Id")
	if c.sent[id] == nil {
		c.sent[id] = make(chan struct{})
	}
	return c.sent[id]
}

func (c *cloud) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	c.mu.Lock()
	refuse := c.refuse
	c.mu.Unlock()
	switch {
	case refuse != "" && strings.HasPrefix(refuse, op+" "):
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"__type":%q,"message":"no"}`, strings.TrimPrefix(refuse, op+" "))
	case op == "DescribeLogGroups":
		var in struct{ LogGroupNamePrefix string }
		if err := json.Unmarshal(body, &in); err != nil {
			c.t.Errorf("%s: %v", body, err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if strings.HasPrefix(groupName, in.LogGroupNamePrefix) {
			fmt.Fprintf(w, `{"logGroups":[{"logGroupName":%q,"logGroupArn":%q}]}`, groupName, arn)
		} else {
			fmt.Fprint(w, `{"logGroups":[]}`)
		}
	case op == "StartLiveTail":
		if !strings.HasPrefix(r.Host, "stream-") || !strings.Contains(string(body), arn) || strings.Contains(string(body), arn+":*") {
			c.t.Errorf("start live tail at %s: %s", r.Host, body)
		}
		c.session(w, r)
	default:
		c.t.Errorf("unexpected: %s %s", op, body)
	}
}

func (c *cloud) session(w http.ResponseWriter, r *http.Request) {
	<-c.written(r)
	c.mu.Lock()
	c.sessions++
	c.open++
	c.most = max(c.most, c.open)
	n := c.sessions
	c.mu.Unlock()
	defer func() { c.mu.Lock(); c.open--; c.mu.Unlock() }()
	w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
	w.WriteHeader(http.StatusOK)
	encoder := eventstream.NewEncoder()
	say := func(kind, payload string) {
		var m eventstream.Message
		if strings.HasSuffix(kind, "Exception") {
			m.Headers.Set(":message-type", eventstream.StringValue("exception"))
			m.Headers.Set(":exception-type", eventstream.StringValue(kind))
		} else {
			m.Headers.Set(":message-type", eventstream.StringValue("event"))
			m.Headers.Set(":event-type", eventstream.StringValue(kind))
		}
		m.Headers.Set(":content-type", eventstream.StringValue("application/json"))
		m.Payload = []byte(payload)
		_ = encoder.Encode(w, m) // the client may have gone
		w.(http.Flusher).Flush()
	}
	say("initial-response", "{}")
	say("sessionStart", `{"sessionId":"1"}`)
	c.script(n, say, r.Context().Done())
}

func update(sampled bool, messages ...string) string {
	var results []string
	for _, m := range messages {
		results = append(results, fmt.Sprintf(`{"timestamp":1795365893762,"ingestionTime":1795365893999,"logStreamName":"one","logGroupIdentifier":%q,"message":%q}`, arn, m))
	}
	return fmt.Sprintf(`{"sessionMetadata":{"sampled":%v},"sessionResults":[%s]}`, sampled, strings.Join(results, ","))
}

// read runs a source and answers what it emits, as text.
func read(t *testing.T, c *cloud, name, cursor string, change func(*Source)) <-chan string {
	t.Helper()
	s := New(c.config, slog.New(slog.NewTextHandler(t.Output(), nil)))
	s.retries = 10 * time.Millisecond
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, done := make(chan string, 100), make(chan error, 1)
	go func() {
		done <- s.Read(ctx, name, cursor, func(e stream.Event) error {
			switch e.Kind {
			case stream.Gap:
				out <- "gap: " + e.Text
			case stream.Note:
				out <- "note: " + e.Text
			default:
				out <- fmt.Sprintf("%d %s %s %s", e.Time.UnixMilli(), e.Stream, e.Text, e.Cursor)
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("did not end")
		}
	})
	return out
}

func want(t *testing.T, out <-chan string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		select {
		case got := <-out:
			if !strings.HasPrefix(got, w) {
				t.Fatalf("got %q, want %q", got, w)
			}
		case <-time.After(patience):
			t.Fatalf("nothing came, want %q", w)
		}
	}
}

const channelName = "logs:" + groupName

func TestLines(t *testing.T) {
	c := startCloud(t, func(_ int, say func(string, string), gone <-chan struct{}) {
		say("sessionUpdate", update(false))
		say("sessionUpdate", update(false, "hello\n", "wörld"))
		say("sessionUpdate", update(true, "some of many"))
		<-gone
	})
	want(t, read(t, c, channelName, "", nil), "1795365893762 one hello 1795365893762", "1795365893762 one wörld", "1795365893762 one some of many", "gap: sampled: more than 500")
}

func TestSessionIsRenewed(t *testing.T) {
	c := startCloud(t, func(n int, say func(string, string), gone <-chan struct{}) {
		for i := 0; ; i++ {
			say("sessionUpdate", update(false))
			if i == 0 {
				say("sessionUpdate", update(false, fmt.Sprint("session ", n)))
			}
			select {
			case <-gone:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	out := read(t, c, channelName, "1795365893762", func(s *Source) { s.lifetime = time.Second })
	want(t, out, "gap: another reader began", "1795365893762 one session 1", "gap: the session was renewed", "1795365893762 one session 2", "gap: the session was renewed", "1795365893762 one session 3")
}

// AWS ends it, it falls silent, the connection breaks: each is said once, and there is a new one.
func TestSessionsThatEnd(t *testing.T) {
	c := startCloud(t, func(n int, say func(string, string), gone <-chan struct{}) {
		say("sessionUpdate", update(false, fmt.Sprint("session ", n)))
		switch n {
		case 1:
			say("SessionTimeoutException", `{"message":"three hours"}`)
		case 2:
		default:
			<-gone
		}
	})
	out := read(t, c, channelName, "", func(s *Source) { s.silence = 2 * time.Second })
	want(t, out, "1795365893762 one session 1", "gap: CloudWatch ended the session", "1795365893762 one session 2", "gap: CloudWatch ended the session", "1795365893762 one session 3", "gap: the session fell silent", "1795365893762 one session 4")
}

func TestWhatViewersAreTold(t *testing.T) {
	for _, e := range []struct{ refuse, says string }{
		{"StartLiveTail LimitExceededException", "gap: the account has as many"},
		{"StartLiveTail ResourceNotFoundException", "gap: there is no such log group"},
		{"StartLiveTail AccessDeniedException", "gap: the node may not"},
		{"DescribeLogGroups AccessDeniedException", "gap: the node may not"},
		{"DescribeLogGroups ServiceUnavailableException", "gap: CloudWatch Logs does not answer"},
	} {
		c := startCloud(t, func(_ int, say func(string, string), gone <-chan struct{}) {
			say("sessionUpdate", update(false, "at last"))
			<-gone
		})
		c.refuse = e.refuse
		out := read(t, c, channelName, "", nil)
		want(t, out, e.says)
		c.mu.Lock()
		c.refuse = ""
		c.mu.Unlock()
		want(t, out, "1795365893762 one at last") // and nothing was said twice
	}
	c := startCloud(t, nil)
	want(t, read(t, c, channelName+"2", "", nil), "gap: there is no such log group")
	want(t, read(t, c, "logs:/aws/lambda", "", nil), "gap: there is no such log group") // a prefix is none
}

func TestNames(t *testing.T) {
	s := New(aws.Config{Region: "eu-central-1"}, slog.New(slog.DiscardHandler))
	for name, ok := range map[string]bool{"logs:/aws/lambda/x": true, "logs:a": true, "logs:" + strings.Repeat("a", 240): true, "logs:" + strings.Repeat("a", 241): false,
		"logs:": false, "logs:a:b": false, "logs:a#b": false, "logs:a*": false, "docker:a": false} {
		if err := s.Check(name); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
