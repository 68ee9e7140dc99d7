package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/cdk/operate/aws"
	"tideline/cdk/settings"
)

// cloud is a stand-in of CloudFormation, which answers one status after another and the last one for ever, and of CloudWatch, which counts.
type cloud struct {
	mu       sync.Mutex
	statuses []string
	asked    int
	sent     []url.Values
	refuse   string // what CloudWatch answers instead, as an error's code
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	switch form.Get("Action") {
	case "DescribeStacks":
		status := c.statuses[min(c.asked, len(c.statuses)-1)]
		c.asked++
		_, _ = io.WriteString(w, "<R><DescribeStacksResult><Stacks><member><StackStatus>"+status+"</StackStatus></member></Stacks></DescribeStacksResult></R>")
	case "PutMetricData":
		if c.refuse != "" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<ErrorResponse><Error><Code>"+c.refuse+"</Code></Error></ErrorResponse>")
			return
		}
		c.sent = append(c.sent, form)
		_, _ = io.WriteString(w, "<PutMetricDataResponse/>")
	default:
		http.Error(w, "what?", http.StatusBadRequest)
	}
}

func (c *cloud) seen() (asked int, sent []url.Values) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked, append([]url.Values{}, c.sent...)
}

func (c *cloud) account(t *testing.T) *aws.Account {
	t.Helper()
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-central-1"} {
		t.Setenv(name, value)
	}
	account, err := aws.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return account
}

// asked waits until the stack has been asked for so often.
func (c *cloud) waitAsked(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if asked, _ := c.seen(); asked >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the stack was not asked for %d times", n)
		}
		time.Sleep(time.Millisecond)
	}
}

// The pager is quiet while the stack is updated: not before, not in a roll-back, not afterwards.
func TestTheSignOfADeploymentIsSentWhileTheStackIsUpdatedAndNotInARollBack(t *testing.T) {
	c := &cloud{statuses: []string{"UPDATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"}}
	account := c.account(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sayWhileUpdating(ctx, account, "dev", time.Millisecond, io.Discard) }()
	c.waitAsked(t, 8)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("an end that was ordered: %v", err)
	}
	_, sent := c.seen()
	if len(sent) != 2 {
		t.Fatalf("%d signs for two looks at an update", len(sent))
	}
	if f := sent[0]; f.Get("Namespace") != "Tideline/dev" || f.Get("MetricData.member.1.MetricName") != "Deploying" || f.Get("MetricData.member.1.Value") != "1" || f.Get("Version") != "2010-08-01" {
		t.Errorf("sent %v", f)
	}
}

func TestADeploymentThatMayNotQuietThePagerSaysSo(t *testing.T) {
	c := &cloud{statuses: []string{"UPDATE_IN_PROGRESS"}, refuse: "AccessDenied"}
	if err := sayWhileUpdating(t.Context(), c.account(t), "dev", time.Hour, io.Discard); err == nil || !strings.Contains(err.Error(), "the pager is not quiet") {
		t.Errorf("%v", err)
	}
}

func TestAFailureOfCloudWatchIsSaidOnceAndTriedAgain(t *testing.T) {
	c := &cloud{statuses: []string{"UPDATE_IN_PROGRESS"}, refuse: "InternalFailure"}
	account := c.account(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- sayWhileUpdating(ctx, account, "dev", time.Millisecond, &out) }()
	c.waitAsked(t, 4)
	cancel()
	if err := <-done; err != nil || strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), "InternalFailure") {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestTheNextMarkGoesBeforeThoseOfTheDeployedStack(t *testing.T) {
	account := ourAccount(t)
	out, err := command(t, "mark", "-c", "stage=new", "-c", "version=v1")
	if m := settings.ParseMarks(strings.TrimSpace(out)); err != nil || len(m) != 1 || !strings.HasSuffix(m[0], "Z v1") {
		t.Fatalf("the first: %v, %q", err, out)
	}
	template := `{"Parameters":{"Deployments":{"Type":"String"}},"Resources":{"Q":{"Type":"AWS::SQS::Queue"}}}`
	var answer struct{}
	if err := account.Ask(t.Context(), "cloudformation", "CreateStack", url.Values{"StackName": {"tideline-new"}, "TemplateBody": {template},
		"Parameters.member.1.ParameterKey": {"Deployments"}, "Parameters.member.1.ParameterValue": {strings.TrimSpace(out)}}, &answer); err != nil {
		t.Fatal(err)
	}
	out, err = command(t, "mark", "-c", "stage=new", "-c", "version=v2")
	if m := settings.ParseMarks(strings.TrimSpace(out)); err != nil || len(m) != 2 || !strings.HasSuffix(m[0], "Z v2") || !strings.HasSuffix(m[1], "Z v1") {
		t.Errorf("the second: %v, %q", err, out)
	}
}
