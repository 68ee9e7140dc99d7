package main

import (
	"slices"
	"strings"
	"testing"
)

// Every alarm says what no data means to it: the default would make a silent failure look like a quiet night.
func TestAlarmsTreatMissingDataDeliberately(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, a := range tm.all(t, "AWS::CloudWatch::Alarm") {
			if treat := a.get("TreatMissingData"); treat != "notBreaching" && treat != "breaching" {
				t.Errorf("%s: %v", a.ID, treat)
			}
			if len(texts(a.get("AlarmActions"))) == 0 {
				t.Errorf("%s tells nobody", a.ID)
			}
		}
		tm.one(t, "AWS::CloudWatch::Alarm", "OperationsNoNode").want(t, "TreatMissingData", "breaching")
	})
}

func TestOneCompositePagesOnWhatHurtsUsers(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		pages := tm.all(t, "AWS::CloudWatch::CompositeAlarm")
		if len(pages) != 1 {
			t.Fatalf("%d composites", len(pages))
		}
		rule := plain(pages[0].get("AlarmRule"))
		for _, part := range []string{"OperationsNoNode", "OperationsBalancerErrors"} {
			if !strings.Contains(rule, part) {
				t.Errorf("%s does not page: %s", part, rule)
			}
		}
	})
}

// A message in a dead-letter queue that nobody looks at is a message that was lost.
func TestEveryQueueOfFailuresHasAnAlarm(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		watched := map[string]bool{}
		for _, a := range tm.all(t, "AWS::CloudWatch::Alarm") {
			if a.get("MetricName") == "ApproximateNumberOfMessagesVisible" && plain(a.get("Threshold")) == "0" {
				watched[plain(a.get("Dimensions.0.Value.Fn::GetAtt.0"))] = true
			}
		}
		queues := 0
		for _, q := range tm.all(t, "AWS::SQS::Queue") {
			if !strings.Contains(q.ID, "Failed") {
				continue
			}
			queues++
			if !watched[plain(q.ID)] {
				t.Errorf("nobody hears of messages in %s", q.ID)
			}
		}
		if queues == 0 {
			t.Error("no queue of failures in the template")
		}
	})
}

func TestAlarmsAreSentWhereTheDeploymentSays(t *testing.T) {
	var to []string
	for _, s := range synth(t, "prod").all(t, "AWS::SNS::Subscription") {
		if s.get("Protocol") == "email" {
			to = append(to, s.get("Endpoint").(string))
		}
	}
	if !slices.Equal(to, []string{"ops@example.com"}) {
		t.Errorf("mail to %v", to)
	}
}

func TestTheCacheIsWatchedInEveryKind(t *testing.T) {
	for name, want := range map[string]int{"dev": 1, "prod": 2, "alb": 2, "serverless": 1, "existing": 0} {
		n := 0
		for _, a := range synth(t, name).all(t, "AWS::CloudWatch::Alarm") {
			if strings.HasPrefix(a.ID, "OperationsCacheMemory") {
				n++
			}
		}
		if n != want {
			t.Errorf("%s: %d alarms on the cache's memory, want %d", name, n, want)
		}
	}
}

func TestAlarmsAndRunbookHaveTheSameNames(t *testing.T) {
	page := readFile(t, "..", "docs", "operations.md")
	everywhere(t, func(t *testing.T, tm template) {
		for _, a := range slices.Concat(tm.all(t, "AWS::CloudWatch::Alarm"), tm.all(t, "AWS::CloudWatch::CompositeAlarm")) {
			_, name, ok := strings.Cut(a.get("AlarmDescription").(string), "Runbook: docs/operations.md, ")
			if !ok {
				t.Errorf("%s does not say where its runbook is", a.ID)
				continue
			}
			if family := strings.TrimRight(name, "0123456789"); !strings.Contains(page, "`"+family+"`") {
				t.Errorf("docs/operations.md says nothing of `%s`", family)
			}
		}
	})
}

// dashboard is the body of the one dashboard, its references left out.
func dashboard(t *testing.T, tm template) string {
	t.Helper()
	boards := tm.all(t, "AWS::CloudWatch::Dashboard")
	if len(boards) != 1 {
		t.Fatalf("%d dashboards", len(boards))
	}
	var b strings.Builder
	for part := range leaves(boards[0].get("DashboardBody")) {
		b.WriteString(part)
	}
	if !strings.HasPrefix(b.String(), `{"`) {
		t.Fatalf("dashboard %.100s", &b)
	}
	return b.String()
}
