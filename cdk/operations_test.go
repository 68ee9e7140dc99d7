package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tideline/cdk/cost"
	"tideline/cdk/settings"
	"tideline/shared/metric"
)

// Every alarm says what no data means to it: the default would make a silent failure look like a quiet night.
func TestAlarmsTreatMissingDataDeliberately(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, a := range tm.all(t, "AWS::CloudWatch::Alarm") {
			if treat := a.get("TreatMissingData"); treat != "notBreaching" && treat != "breaching" {
				t.Errorf("%s: %v", a.ID, treat)
			}
			if len(texts(a.get("AlarmActions"))) == 0 && !strings.HasPrefix(a.ID, "OperationsDeploying") {
				t.Errorf("%s tells nobody", a.ID)
			}
		}
		for _, silence := range []string{"OperationsNoNode", "OperationsNodesSilent", "OperationsKeysSilent"} {
			tm.one(t, "AWS::CloudWatch::Alarm", silence).want(t, "TreatMissingData", "breaching")
		}
	})
}

func TestOneCompositePagesOnWhatHurtsUsers(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		pages := tm.all(t, "AWS::CloudWatch::CompositeAlarm")
		if len(pages) != 1 {
			t.Fatalf("%d composites", len(pages))
		}
		rule := plain(pages[0].get("AlarmRule"))
		parts := []string{"OperationsNoNode", "OperationsBalancerErrors", "OperationsCanaryMissed", "OperationsSlowDelivery", "OperationsTemporaryErrors", "OperationsRequestErrors"}
		if tm.Outputs["TodoTable"] != nil {
			parts = append(parts, "OperationsStreamLate")
		}
		for _, part := range parts {
			if !strings.Contains(rule, part) {
				t.Errorf("%s does not page: %s", part, rule)
			}
		}
	})
}

// CloudWatch bills each, and the estimate of a month has them as a number.
func TestTheEstimateOfCostsCountsTheAlarms(t *testing.T) {
	n := len(synth(t, "prod").all(t, "AWS::CloudWatch::Alarm"))
	if n > cost.Alarms || n < cost.Alarms-10 {
		t.Errorf("%d alarms, cdk/cost has %d", n, cost.Alarms)
	}
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

// headings of a page, as the anchors that links to them have.
func headings(page string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^#+ (.+)$").FindAllStringSubmatch(page, -1) {
		anchor := strings.ToLower(regexp.MustCompile("[^A-Za-z0-9 _-]").ReplaceAllString(m[1], ""))
		anchors[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	return anchors
}

// Whoever is woken by an alarm finds what to do where the alarm says.
func TestEveryAlarmNamesAHeadingOfTheRunbook(t *testing.T) {
	anchors := headings(readFile(t, "..", "docs", "operations.md"))
	named := map[string]bool{}
	everywhere(t, func(t *testing.T, tm template) {
		for _, a := range slices.Concat(tm.all(t, "AWS::CloudWatch::Alarm"), tm.all(t, "AWS::CloudWatch::CompositeAlarm")) {
			_, anchor, ok := strings.Cut(fmt.Sprint(a.get("AlarmDescription")), "Runbook: docs/operations.md#")
			named[anchor] = true
			if !ok || !anchors[anchor] {
				t.Errorf("%s leads to %q, which is no heading of docs/operations.md", a.ID, anchor)
			}
		}
	})
	section, _, _ := strings.Cut(readFile(t, "..", "docs", "operations.md"), "## Saved queries")
	_, section, ok := strings.Cut(section, "## Alarms in AWS")
	if !ok {
		t.Fatal("docs/operations.md has no section of alarms")
	}
	for anchor := range headings(section) {
		if !named[anchor] {
			t.Errorf("docs/operations.md explains the alarm %s, which there is not", anchor)
		}
	}
}

// Each promise to users is watched, by alarms that there are.
func TestTheAlarmsOfEveryPromiseAreThere(t *testing.T) {
	there := map[string]bool{}
	everywhere(t, func(t *testing.T, tm template) {
		for _, a := range tm.all(t, "AWS::CloudWatch::Alarm") {
			name := strings.TrimPrefix(strings.TrimPrefix(a.ID, "Operations"), "Edge")
			there[strings.TrimRight(name[:len(name)-8], "0123456789")] = true // without the CDK's hash
		}
	})
	promised, watched := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d) \| `).FindAllStringSubmatch(readFile(t, "..", "docs", "guarantees.md"), -1) {
		promised[m[1]] = true
	}
	_, table, _ := strings.Cut(readFile(t, "..", "docs", "operations.md"), "| promise | comes under pressure when | alarms |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range regexp.MustCompile(`(?m)^\| (\d) \| .+ \| (.+) \|$`).FindAllStringSubmatch(table, -1) {
		watched[row[1]] = true
		for _, alarm := range regexp.MustCompile("`([A-Za-z]+)`").FindAllStringSubmatch(row[2], -1) {
			if !there[alarm[1]] {
				t.Errorf("promise %s: there is no alarm %s", row[1], alarm[1])
			}
		}
	}
	if len(promised) < 8 || !maps.Equal(promised, watched) {
		t.Errorf("promised %v, in the table %v", promised, watched)
	}
}

func TestAlarmsLeadToTheDeployersCopyOfTheRunbook(t *testing.T) {
	tm, _ := synthWith(t, "runbook", map[string]any{"runbookUrl": "https://wiki.example.com/operations.md"}, testRegion)
	tm.one(t, "AWS::CloudWatch::Alarm", "OperationsNoNode").want(t, "AlarmDescription",
		"no node is healthy, so that nothing is served. Runbook: https://wiki.example.com/operations.md#nonode")
}

// board is the body of the one dashboard, its references as the names of what they refer to.
type board struct {
	Variables []struct{ Type, ID, Pattern, DefaultValue string }
	Widgets   []struct {
		Type       string
		Properties struct {
			Title, Markdown, Query string
			Metrics                [][]any
			Annotations            struct {
				Vertical []struct{ Value, Label string }
			}
		}
	}
}

func dashboard(t *testing.T, tm template) board {
	t.Helper()
	boards := tm.all(t, "AWS::CloudWatch::Dashboard")
	if len(boards) != 1 {
		t.Fatalf("%d dashboards", len(boards))
	}
	body, _ := boards[0].get("DashboardBody.Fn::Sub.0").(string)
	var out board
	if err := json.Unmarshal([]byte(body), &out); err != nil || len(out.Widgets) < 20 {
		t.Fatalf("%d widgets, %v: %.200s", len(out.Widgets), err, body)
	}
	return out
}

func (b board) rows() []string {
	var titles []string
	for _, w := range b.Widgets {
		if title, ok := strings.CutPrefix(w.Properties.Markdown, "## "); ok {
			title, _, _ = strings.Cut(title, ":")
			titles = append(titles, title)
		}
	}
	return titles
}

// The page explains the dashboard in the dashboard's order, and each row of the dashboard leads to its paragraph.
func TestThePageFollowsTheDashboardRowByRow(t *testing.T) {
	page := readFile(t, "..", "docs", "operations.md")
	_, section, _ := strings.Cut(page, "\n## The dashboard\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var want []string
	for _, m := range regexp.MustCompile("(?m)^### (.+)$").FindAllStringSubmatch(section, -1) {
		want = append(want, m[1])
	}
	b := dashboard(t, synth(t, "dev"))
	if got := b.rows(); !slices.Equal(got, want) {
		t.Errorf("rows %q\n page %q", got, want)
	}
	anchors := headings(page)
	for _, w := range b.Widgets {
		if _, anchor, ok := strings.Cut(w.Properties.Markdown, "(docs/operations.md#"); ok && !anchors[strings.TrimSuffix(anchor, ")")] {
			t.Errorf("%s: no such heading", w.Properties.Markdown)
		}
	}
	for _, variant := range []string{"prod", "alb", "serverless", "existing"} {
		for _, title := range dashboard(t, synth(t, variant)).rows() {
			if !slices.Contains(want, title) {
				t.Errorf("%s: the page says nothing of %s", variant, title)
			}
		}
	}
}

// Which version did it? Every graph has a line for each of the last deployments, from the parameter that make deploy writes.
func TestEveryGraphMarksTheLastDeployments(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		graphs := 0
		for _, w := range dashboard(t, tm).Widgets {
			if w.Type != "metric" {
				continue
			}
			graphs++
			if n := len(w.Properties.Annotations.Vertical); n != settings.MarksKept || w.Properties.Annotations.Vertical[0].Value != "${Time0}" || w.Properties.Annotations.Vertical[4].Label != "${Version4}" {
				t.Errorf("%s has %d lines", w.Properties.Title, n)
			}
		}
		// Time0 is the first word of the first entry of the list.
		newest := at(tm.all(t, "AWS::CloudWatch::Dashboard")[0].get("DashboardBody.Fn::Sub.1"), "Time0")
		if want := `{"Fn::Select":[0,{"Fn::Split":[" ",{"Fn::Select":[0,{"Fn::Split":[",",{"Ref":"` + settings.MarksParameter + `"}]}]}]}]}`; plain(newest) != want {
			t.Errorf("the newest is %s", plain(newest))
		}
		if graphs < 15 {
			t.Errorf("%d graphs", graphs)
		}
		p := tm.Parameters[settings.MarksParameter]
		pattern, _ := p["AllowedPattern"].(string)
		if value, _ := p["Default"].(string); value != (settings.Marks{}).String() || !regexp.MustCompile(pattern).MatchString(value) {
			t.Errorf("the parameter's default %q is not what it allows", value)
		}
	})
}

// One row for all nodes, and one for all functions, of which a reader chooses one; no copies.
func TestVariablesStandInThePlaceOfCopies(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		b := dashboard(t, tm)
		rows := map[string]string{"node": "One node", "function": "One function"}
		if len(b.Variables) != len(rows) {
			t.Fatalf("variables %+v", b.Variables)
		}
		for _, v := range b.Variables {
			changed, row := 0, ""
			for _, w := range b.Widgets {
				if title, ok := strings.CutPrefix(w.Properties.Markdown, "## "); ok {
					row, _, _ = strings.Cut(title, ":")
				}
				if v.Pattern == "" || !strings.Contains(plain(w), v.Pattern) {
					continue
				}
				changed++
				if row != rows[v.ID] {
					t.Errorf("choosing a %s changes %q of the row %s, which is about all", v.ID, w.Properties.Title, row)
				}
			}
			if changed != 3 {
				t.Errorf("choosing a %s changes %d widgets", v.ID, changed)
			}
		}
	})
}

// A deployment must not wake anybody, and an outage that has nothing to do with one must.
func TestThePagerIsQuietOnlyWhileADeploymentSaysSo(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		page := tm.one(t, "AWS::CloudWatch::CompositeAlarm", "OperationsPage")
		if !mentions(page.get("ActionsSuppressor"), "OperationsDeploying") {
			t.Errorf("the suppressor is %s", plain(page.get("ActionsSuppressor")))
		}
		page.want(t, "ActionsSuppressorWaitPeriod", 60)
		page.want(t, "ActionsSuppressorExtensionPeriod", 180)
		by := tm.one(t, "AWS::CloudWatch::Alarm", "OperationsDeploying")
		by.want(t, "MetricName", metric.CloudDeploying)
		by.want(t, "TreatMissingData", "notBreaching") // whoever deploys has gone: the pager is on again
		period, _ := by.get("Period").(float64)
		periods, _ := by.get("EvaluationPeriods").(float64)
		if period*periods > 120 {
			t.Errorf("the pager would stay quiet for %v s after the last sign of a deployment", period*periods)
		}
		if by.get("AlarmActions") != nil {
			t.Error("a deployment is no alarm: nobody is to be told")
		}
	})
}

// A query that reads a group which is not there, or a field that no line has, answers nothing.
func TestSavedQueriesReadOurLogsAndTheirFields(t *testing.T) {
	page := readFile(t, "..", "docs", "operations.md")
	fields := logFields(t)
	everywhere(t, func(t *testing.T, tm template) {
		for _, q := range tm.all(t, "AWS::Logs::QueryDefinition") {
			groups, _ := q.get("LogGroupNames").([]any)
			for _, g := range groups {
				if id, _ := at(g, "Ref").(string); tm.Resources[id].Type != "AWS::Logs::LogGroup" {
					t.Errorf("%s reads %s", q.ID, plain(g))
				}
			}
			name := fmt.Sprint(q.get("Name"))
			if _, short, _ := strings.Cut(name, "/"); len(groups) == 0 || !strings.Contains(page, "| "+short+" |") {
				t.Errorf("%s: %d groups; docs/operations.md must list it", name, len(groups))
			}
			for _, field := range regexp.MustCompile(`(?:filter|by|,|or|fields|latest\() ?([a-z][A-Za-z]+)(?: =|,| in|\)|$| like)`).FindAllStringSubmatch(fmt.Sprint(q.get("QueryString")), -1) {
				if !fields[field[1]] {
					t.Errorf("%s: no line of ours has the field %s", name, field[1])
				}
			}
		}
	})
}

// logFields are the names of the attributes that the code logs with, and those of every line.
func logFields(t *testing.T) map[string]bool {
	t.Helper()
	fields := map[string]bool{"msg": true, "level": true, "time": true}
	for _, root := range []string{"node", "functions", "shared"} {
		eachFile(t, filepath.Join("..", root), func(f *ast.File) {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if of, ok := call.Fun.(*ast.SelectorExpr); !ok || of.Sel.Name != "String" && !slices.Contains([]string{"Debug", "Info", "Warn", "Error", "InfoContext", "WarnContext", "ErrorContext"}, of.Sel.Name) {
					return true
				}
				for _, arg := range call.Args {
					if literal, ok := arg.(*ast.BasicLit); ok && literal.Kind == token.STRING {
						name, _ := strconv.Unquote(literal.Value)
						fields[name] = true
					}
				}
				return true
			})
		})
	}
	if len(fields) < 30 {
		t.Fatalf("fields %v", fields)
	}
	return fields
}
