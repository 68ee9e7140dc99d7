package lambdatest_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tideline/functions/lambdahttp"
	lambdatest "tideline/test/lambda"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m, lambdatest.Cleanup) }

type echo struct {
	Text, ID   string
	Invocation int
}

func deploy(t *testing.T, env ...string) *lambdatest.Function {
	t.Helper()
	return lambdatest.Deploy(t, lambdatest.Build(t, "tideline/test/lambda/probe"), env...)
}

func sound(t *testing.T, f *lambdatest.Function, invocation int, cold bool) {
	t.Helper()
	r := f.Invoke([]byte(`{"do":"echo","text":"é"}`))
	if r.Error != nil {
		t.Fatalf("%v\n%s", r.Error, f.Logs())
	}
	var e echo
	if err := json.Unmarshal(r.Payload, &e); err != nil {
		t.Fatal(err)
	}
	if e.Text != "é" || e.ID != r.RequestID || e.Invocation != invocation || r.Cold != cold {
		t.Errorf("%+v, cold %v; want invocation %d, cold %v", e, r.Cold, invocation, cold)
	}
}

func TestWarmInvocationsShareAProcess(t *testing.T) {
	f := deploy(t)
	for i := range 5 {
		sound(t, f, i+1, i == 0)
	}
	logs := f.Logs()
	for _, want := range []string{`"msg":"echo"`, `"request_id":"`, `"trace_id":"5bef4de7ad49b0e87f6ef6c87fc2e700"`, `"_aws":`, `"tasks_created_total":1`} {
		if strings.Count(logs, want) < 5 {
			t.Errorf("%s is not in every invocation's log:\n%s", want, logs)
		}
	}
}

func TestErrorsLeaveTheProcess(t *testing.T) {
	f := deploy(t)
	sound(t, f, 1, true)
	if r := f.Invoke([]byte(`{"do":"fail"}`)); r.Error == nil || r.Error.Message != "told to fail" {
		t.Errorf("error %v", r.Error)
	}
	if r := f.Invoke([]byte(`[]`)); r.Error == nil {
		t.Errorf("an event that is no object: %s", r.Payload)
	}
	sound(t, f, 4, false)
	if !strings.Contains(f.Logs(), `"msg":"event failed"`) {
		t.Errorf("the failure is not in the log:\n%s", f.Logs())
	}
}

func TestPanicAndExitEndTheProcess(t *testing.T) {
	f := deploy(t)
	sound(t, f, 1, true)
	if r := f.Invoke([]byte(`{"do":"panic"}`)); r.Error == nil || r.Error.Message != "told to panic" {
		t.Errorf("error %v", r.Error)
	}
	lambdatest.Poll(t, f.Ended)
	sound(t, f, 1, true)
	if r := f.Invoke([]byte(`{"do":"exit"}`)); r.Error == nil || r.Error.Type != lambdatest.ErrorExited || !strings.Contains(r.Error.Message, "3") {
		t.Errorf("error %v", r.Error)
	}
	sound(t, f, 1, true)
}

func TestDeadline(t *testing.T) {
	f := deploy(t)
	sound(t, f, 1, true)
	if r := f.Invoke([]byte(`{"do":"wait"}`), lambdatest.WithTimeout(time.Second)); r.Error == nil || r.Error.Type == lambdatest.ErrorTimedOut {
		t.Errorf("a handler that minds its deadline must be in time to say so: %v", r.Error)
	}
	sound(t, f, 3, false)
	if r := f.Invoke([]byte(`{"do":"hang"}`), lambdatest.WithTimeout(500*time.Millisecond)); r.Error == nil || r.Error.Type != lambdatest.ErrorTimedOut {
		t.Errorf("a handler that hangs: %v", r.Error)
	}
	sound(t, f, 1, true)
}

func TestInitThatEnds(t *testing.T) {
	f := deploy(t, "PROBE_EXIT=1")
	if r := f.Invoke([]byte(`{}`)); r.Error == nil || r.Error.Type != lambdatest.ErrorExited || !strings.Contains(f.Logs(), "told to end") {
		t.Errorf("error %v, logs %s", r.Error, f.Logs())
	}
}

func TestHTTPEventsOfARealBinary(t *testing.T) {
	f := deploy(t)
	for name, multi := range map[string]bool{"multi": true, "single": false} {
		r := lambdatest.Request(t, "PUT", "/a%2Fb/%25?q=%26x&q=y+z", `{}`)
		res := lambdatest.Decode(t, f.Invoke(lambdatest.ALB(t, r, multi)).Payload, multi)
		var got struct {
			Method, Path, Remote, Host string
			Query                      map[string][]string
		}
		if err := json.Unmarshal(res.Body, &got); err != nil {
			t.Fatal(err)
		}
		want := "&x,y z"
		if !multi {
			want = "y z"
		}
		if res.Status != 200 || got.Method != "PUT" || got.Path != "/a/b/%" || strings.Join(got.Query["q"], ",") != want ||
			got.Remote != "198.51.100.9:0" || got.Host != "app.example.org" {
			t.Errorf("%s: %d %+v", name, res.Status, got)
		}
	}
	res := lambdatest.Decode(t, f.Invoke(lambdatest.ALBHealthCheck(t, "/wait")).Payload, true)
	if res.Status != 200 || string(res.Body) != "ok\n" {
		t.Errorf("health check: %+v", res)
	}
	payload := f.Invoke(lambdatest.ALB(t, lambdatest.Request(t, "GET", "/large", ""), true)).Payload
	if res := lambdatest.Decode(t, payload, true); res.Status != 500 || len(payload) > lambdahttp.ResponseBytes || !strings.Contains(string(res.Body), "response-too-large") {
		t.Errorf("large: %d in %d bytes", res.Status, len(payload))
	}
	r := f.Invoke(lambdatest.ALB(t, lambdatest.Request(t, "GET", "/wait", ""), true), lambdatest.WithTimeout(time.Second))
	if res := lambdatest.Decode(t, r.Payload, true); res.Status != 504 || !strings.Contains(string(res.Body), "urn:tideline:problem:timeout") {
		t.Errorf("late: %d %s", res.Status, res.Body)
	}
}
