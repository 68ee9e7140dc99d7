package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tideline/test/fleet"
	"tideline/test/otlptest"
)

const (
	givenTrace  = "0af7651916cd43dd8448eb211c80319c"
	givenSpan   = "b7ad6b7169203331"
	otherTrace  = "1af7651916cd43dd8448eb211c80319c"
	traceparent = "00-" + givenTrace + "-" + givenSpan + "-01"
)

// traced starts the whole system, with two devices of one user on both of its nodes.
func traced(t *testing.T, env ...string) (p *fleet.Process, ann, phone *client) {
	t.Helper()
	p, origin := local(t, append(env, "PORT=127.0.0.1:0", "DATA_DIR="+t.TempDir(), "LOG_FORMAT=json", "LOG_LEVEL=debug")...)
	ann, annNode := guest(t, "ann", origin)
	phone, phoneNode := ann.join("phone", origin)
	if annNode == phoneNode {
		t.Fatalf("both devices met %s: nothing would cross", annNode)
	}
	for _, c := range []*client{ann, phone} {
		c.subscribe("todos:#" + c.user)
		c.subscribe(lobby)
	}
	return p, ann, phone
}

// write creates a todo under a trace, and answers what tags its announcement had on each device.
func write(t *testing.T, ann, phone *client, title, parent string) (tags []map[string]string) {
	t.Helper()
	var res struct{ Status int }
	ann.mustDo(&res, "rest", args{"method": "POST", "path": "/api/todos", "body": args{"title": title}, "headers": args{"traceparent": parent}})
	if res.Status != 201 {
		t.Fatalf("creating a todo answered %d", res.Status)
	}
	for _, c := range []*client{ann, phone} {
		tags = append(tags, c.event(0, "publication", "todos:#", title).Tags)
	}
	return tags
}

// named finds the one span of a name, or fails.
func named(t *testing.T, spans []otlptest.Span, name string) otlptest.Span {
	t.Helper()
	var found []otlptest.Span
	for _, s := range spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans are called %q in %+v", len(found), name, spans)
	}
	return found[0]
}

// delivered checks that both nodes delivered below a span, once each.
func delivered(t *testing.T, spans []otlptest.Span, namespace string, below otlptest.Span) {
	t.Helper()
	var nodes []string
	for _, s := range spans {
		if s.Name != "deliver "+namespace {
			continue
		}
		nodes = append(nodes, s.Instance)
		if s.Parent != below.ID || s.Kind != "SPAN_KIND_CONSUMER" || s.Attributes["tideline.frames"] != "1" || s.Service != "tideline-node" || s.End.Before(s.Start) {
			t.Errorf("delivery %+v is not below %s", s, below.ID)
		}
	}
	if slices.Sort(nodes); fmt.Sprint(nodes) != "[node-1 node-2]" {
		t.Errorf("delivered by %v", nodes)
	}
}

// One write, from the request to the sockets of two nodes: in the publication's tags, in the collector's spans, and in the log.
func TestATraceGoesFromARequestToTheSockets(t *testing.T) {
	collector := otlptest.Start(t)
	p, ann, phone := traced(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL, "OTEL_BSP_SCHEDULE_DELAY=100")
	for _, tags := range write(t, ann, phone, "followed", traceparent) {
		if parts := strings.Split(tags["traceparent"], "-"); len(parts) != 4 || parts[1] != givenTrace || parts[3] != "01" {
			t.Errorf("tags %v", tags)
		}
	}
	spans := collector.Await(t, givenTrace, 5)
	request, publish := named(t, spans, "POST /api/todos"), named(t, spans, "publish todos")
	if request.Parent != givenSpan || request.Kind != "SPAN_KIND_SERVER" || request.Attributes["http.response.status_code"] != "201" || request.Service != "tideline-functions" {
		t.Errorf("request %+v", request)
	}
	if w := named(t, spans, "write todo"); w.Parent != request.ID || w.Failed != "" || w.Attributes["tideline.version"] != "1" {
		t.Errorf("write %+v", w)
	}
	if publish.Parent != request.ID || publish.Kind != "SPAN_KIND_PRODUCER" || publish.Attributes["messaging.destination.name"] != "todos:#"+ann.user {
		t.Errorf("publish %+v", publish)
	}
	if publish.Attributes["tideline.result"] == "duplicate" {
		publish = request // the outbox was first, under the trace that the todo remembers
	}
	delivered(t, spans, "todos", publish)
	p.Await(`"msg":"request","node":"functions","method":"POST","route":"POST /api/todos".*"trace_id":"` + givenTrace + `"`)
	for _, node := range []string{"node-1", "node-2"} {
		p.Await(`"msg":"publication delivered","node":"` + node + `".*"frames":1.*"trace_id":"` + givenTrace + `"`)
	}

	t.Run("a task is announced under the trace that started it", func(t *testing.T) {
		const id = "3af7651916cd43dd8448eb211c80319c"
		ann.subscribe("user:#" + ann.user)
		var started struct{ Status int }
		ann.mustDo(&started, "rest", args{"method": "POST", "path": "/api/tasks", "body": args{"kind": "import", "format": "json", "data": `[{"title":"imported"}]`},
			"headers": args{"traceparent": "00-" + id + "-" + givenSpan + "-01"}})
		if started.Status != 202 {
			t.Fatalf("starting an import answered %d", started.Status)
		}
		// The worker's publications come after the request has ended, and from another goroutine: the task remembers.
		for _, event := range []string{"task.created", "task.completed"} {
			if tag := ann.event(0, "publication", "user:#", event).Tags["traceparent"]; !strings.HasPrefix(tag, "00-"+id+"-") {
				t.Errorf("%s has the tag %q", event, tag)
			}
		}
	})
	t.Run("what a client says begins a trace of X-Ray's form", func(t *testing.T) {
		if err := ann.say("hello"); err != nil {
			t.Fatal(err)
		}
		tag := phone.event(0, "publication", lobby, "hello").Tags["traceparent"]
		id, _, _ := strings.Cut(strings.TrimPrefix(tag, "00-"), "-")
		if len(id) != 32 {
			t.Fatalf("tag %q", tag)
		}
		seconds, err := strconv.ParseInt(id[:8], 16, 64)
		if age := time.Since(time.Unix(seconds, 0)); err != nil || age < -time.Second || age > time.Minute {
			t.Errorf("trace %s began %v ago, %v", id, age, err)
		}
		spans := collector.Await(t, id, 4)
		relay, publish := named(t, spans, "relay chat"), named(t, spans, "publish chat")
		if relay.Parent != "" || publish.Parent != relay.ID {
			t.Errorf("relay %+v, publish %+v", relay, publish)
		}
		delivered(t, spans, "chat", publish)
	})
	t.Run("what is not sampled is not tagged", func(t *testing.T) {
		for _, tags := range write(t, ann, phone, "unseen", "00-"+otherTrace+"-"+givenSpan+"-00") {
			if len(tags) != 0 {
				t.Errorf("tags %v", tags)
			}
		}
		write(t, ann, phone, "seen", "00-2"+otherTrace[1:]+"-"+givenSpan+"-01")
		collector.Await(t, "2"+otherTrace[1:], 5) // by now the others would be here
		if spans := collector.Trace(otherTrace); len(spans) != 0 {
			t.Errorf("spans of a trace that is not sampled: %+v", spans)
		}
	})
}

// Off is the default: a trace that somebody else records goes through, and nothing is sent anywhere.
func TestWithoutTracingATraceGoesThroughAndNothingIsSent(t *testing.T) {
	collector := otlptest.Start(t)
	_, ann, phone := traced(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL, "OTEL_TRACES_EXPORTER=none", "OTEL_BSP_SCHEDULE_DELAY=100")
	for _, tags := range write(t, ann, phone, "passed on", traceparent) {
		if tags["traceparent"] != traceparent {
			t.Errorf("tags %v, want the caller's own", tags)
		}
	}
	if err := ann.say("hello"); err != nil {
		t.Fatal(err)
	}
	if e := phone.event(0, "publication", lobby, "hello"); len(e.Tags) != 0 {
		t.Errorf("tags %v of what nobody traces", e.Tags)
	}
	if n := collector.Requests(); n != 0 {
		t.Errorf("%d requests to the collector", n)
	}
}
