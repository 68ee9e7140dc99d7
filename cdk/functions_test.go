package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tideline/shared/limit"
)

// ours are the functions that are not the CDK's helpers.
func (tm template) ours(t *testing.T) []resource {
	t.Helper()
	var out []resource
	for _, f := range tm.all(t, "AWS::Lambda::Function") {
		if !cdksOwn(f.ID) {
			out = append(out, f)
		}
	}
	if len(out) < 3 {
		t.Fatalf("%d functions", len(out))
	}
	return out
}

// Without it nobody could sign in for the first five minutes of a stage.
func TestTheFirstKeysAreMadeWithTheStack(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		first := tm.one(t, "Custom::FirstKeys", "EdgeFirstKeys")
		var call strings.Builder
		for part := range leaves(first.get("Create")) {
			call.WriteString(part)
		}
		for _, part := range []string{`"service":"Lambda"`, `"action":"invoke"`, `"FunctionName":"EdgeKeysLive`, `"InvocationType":"Event"`, `"Payload":"{}"`} {
			if !strings.Contains(call.String(), part) {
				t.Errorf("no %s in %s", part, &call)
			}
		}
		if first.get("Update") != nil || first.get("Delete") != nil {
			t.Error("it is called again")
		}
	})
}

func TestFunctionsAreGravitonBinariesWithLogsAndTracing(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for _, f := range tm.ours(t) {
			f.want(t, "Architectures", []string{"arm64"})
			f.want(t, "Runtime", "provided.al2023")
			f.want(t, "Handler", "bootstrap")
			f.want(t, "TracingConfig.Mode", "Active")
			if f.get("LoggingConfig.LogGroup") == nil {
				t.Errorf("%s logs into a group that it makes itself, for ever", f.ID)
			}
			if f.get("ReservedConcurrentExecutions") != nil {
				t.Errorf("%s reserves concurrency, which fails on new accounts", f.ID)
			}
		}
	})
}

func TestEveryFunctionHasALiveAliasAndEverythingUsesIt(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		if functions, aliases := len(tm.ours(t)), len(tm.all(t, "AWS::Lambda::Alias")); functions != aliases {
			t.Errorf("%d functions, %d aliases", functions, aliases)
		}
		uses := map[string]string{"AWS::Lambda::EventSourceMapping": "FunctionName", "AWS::Lambda::Url": "Qualifier", "AWS::Events::Rule": "Targets",
			"AWS::Lambda::EventInvokeConfig": "Qualifier", "AWS::SNS::Subscription": "Endpoint"}
		for kind, property := range uses {
			for _, r := range tm.maybe(kind) {
				if r.get("Protocol") == "email" {
					continue // people, not functions
				}
				v := r.get(property)
				if !mentions(v, "Edge") || (!strings.Contains(plain(v), "Live") && !strings.Contains(plain(v), "live")) {
					if v != "live" {
						t.Errorf("%s %s does not go to an alias: %s", kind, r.ID, plain(v))
					}
				}
			}
		}
		for _, g := range tm.all(t, "AWS::ElasticLoadBalancingV2::TargetGroup") {
			if g.get("TargetType") == "lambda" && !strings.Contains(plain(g.get("Targets")), "Live") {
				t.Errorf("%s: %s", g.ID, plain(g.get("Targets")))
			}
		}
	})
}

func TestFunctionsBehindTheBalancerGetMultiValueHeaders(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		seen := 0
		for _, g := range tm.all(t, "AWS::ElasticLoadBalancingV2::TargetGroup") {
			if g.get("TargetType") == "lambda" {
				seen++
				g.wantAttribute(t, "TargetGroupAttributes", "lambda.multi_value_headers.enabled", "true")
			}
		}
		if seen == 0 {
			t.Error("no function is behind the balancer")
		}
	})
}

// "/api/*" does not match "/api": each route names both forms.
func TestRoutesCoverAPathAndWhatIsBelowIt(t *testing.T) {
	tm := synth(t, "dev")
	paths := map[string]string{}
	priorities := map[string]bool{}
	for _, r := range tm.all(t, "AWS::ElasticLoadBalancingV2::ListenerRule") {
		values := texts(r.get("Conditions.0.PathPatternConfig.Values"))
		if len(values) == 0 || len(values) > 5 {
			t.Errorf("%s has %d paths; the load balancer takes five", r.ID, len(values))
		}
		for _, path := range values {
			paths[path] = r.ID
		}
		if p := plain(r.get("Priority")); priorities[p] {
			t.Errorf("priority %s twice", p)
		} else {
			priorities[p] = true
		}
	}
	for _, path := range []string{"/api", "/api/session", "/api/todos", "/api/tasks"} {
		if paths[path] == "" || paths[path+"/*"] == "" {
			t.Errorf("%s: %q, %q", path, paths[path], paths[path+"/*"])
		}
	}
	if paths["/api/openapi.json"] == "" || paths["/*"] != "" {
		t.Errorf("paths %v", paths)
	}
}

func TestPublishersAreInTheVPCAndTheRestIsNot(t *testing.T) {
	inside := []string{"EdgeBroadcast", "EdgeTodos", "EdgeTasks", "EdgeWorker", "EdgeOutbox"}
	tm := synth(t, "dev")
	for _, f := range tm.ours(t) {
		want := slices.ContainsFunc(inside, func(p string) bool { return strings.HasPrefix(f.ID, p) })
		if got := f.get("VpcConfig") != nil; got != want {
			t.Errorf("%s in the VPC: %v", f.ID, got)
		}
		if got := f.get("Environment.Variables.REDIS_IAM_USER") != nil; got != want {
			t.Errorf("%s signs in to Redis: %v", f.ID, got)
		}
		if want && !strings.Contains(plain(f.get("Environment.Variables.REDIS_IAM_USER")), "-fn-") {
			t.Errorf("%s signs in as %s", f.ID, plain(f.get("Environment.Variables.REDIS_IAM_USER")))
		}
	}
}

func TestTheOutboxIsBoundedAndKeepsWhatItGivesUp(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		var stream resource
		for _, m := range tm.all(t, "AWS::Lambda::EventSourceMapping") {
			if mentions(m.get("FunctionName"), "EdgeOutbox") {
				stream = m
			}
		}
		stream.want(t, "StartingPosition", "TRIM_HORIZON")
		stream.want(t, "BisectBatchOnFunctionError", true)
		stream.want(t, "FunctionResponseTypes", []string{"ReportBatchItemFailures"})
		stream.want(t, "MaximumRecordAgeInSeconds", limit.OutboxRecordAge.Seconds())
		if stream.get("MaximumRetryAttempts") == nil {
			t.Error("attempts are unbounded: one bad record blocks its shard for a day")
		}
		// A queue would get metadata only, of records that are gone after 24 hours.
		if !mentions(stream.get("DestinationConfig.OnFailure.Destination"), "TodoFailedRecords") {
			t.Errorf("failed records go to %s", plain(stream.get("DestinationConfig")))
		}
		filter := fmt.Sprint(stream.get("FilterCriteria.Filters.0.Pattern"))
		if !strings.Contains(filter, `"kind":{"S":["todo"]}`) || strings.Contains(filter, "REMOVE") {
			t.Errorf("filter %s", filter)
		}
	}, "dev", "prod", "alb", "existing")
}

func TestNewTasksReachTheWorkerWithoutASecondWrite(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		pipe := tm.all(t, "AWS::Pipes::Pipe")[0]
		if !mentions(pipe.get("Target"), "TodoWork") {
			t.Errorf("the pipe leads to %s", plain(pipe.get("Target")))
		}
		const s = "SourceParameters.DynamoDBStreamParameters."
		pipe.want(t, s+"MaximumRecordAgeInSeconds", limit.OutboxRecordAge.Seconds())
		pipe.want(t, s+"OnPartialBatchItemFailure", "AUTOMATIC_BISECT")
		if pipe.get(s+"DeadLetterConfig.Arn") == nil || pipe.get(s+"MaximumRetryAttempts") == nil {
			t.Errorf("source %s", plain(pipe.get("SourceParameters")))
		}
		if pattern := fmt.Sprint(pipe.get("SourceParameters.FilterCriteria.Filters.0.Pattern")); pattern != `{"eventName":["INSERT"],"dynamodb":{"NewImage":{"kind":{"S":["task"]}}}}` {
			t.Errorf("filter %s", pattern)
		}
	}, "dev", "prod", "alb", "existing")
}

// A stream serves two readers at most.
func TestTheStreamHasTwoReaders(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		readers := len(tm.all(t, "AWS::Pipes::Pipe"))
		for _, m := range tm.all(t, "AWS::Lambda::EventSourceMapping") {
			if m.get("StartingPosition") != nil {
				readers++
			}
		}
		if readers != 2 {
			t.Errorf("%d readers", readers)
		}
	}, "dev", "prod", "alb", "existing")
}

func TestMessagesOutlastTheirWorkerAndEndInADeadLetterQueue(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		worker := tm.one(t, "AWS::Lambda::Function", "EdgeWorkerFunction")
		queue := tm.one(t, "AWS::SQS::Queue", "TodoWork")
		if visibility, timeout := queue.get("VisibilityTimeout").(float64), worker.get("Timeout").(float64); visibility < 6*timeout {
			t.Errorf("visible again after %v s, the worker may take %v s: at least six times that", visibility, timeout)
		}
		if queue.get("RedrivePolicy.maxReceiveCount") == nil {
			t.Error("a bad message comes back for ever")
		}
		for _, q := range tm.all(t, "AWS::SQS::Queue") {
			q.want(t, "SqsManagedSseEnabled", true)
		}
	}, "dev", "prod", "alb")
}

func TestBroadcastHasFourDoorsAndEachIsGuarded(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		tm.all(t, "AWS::Lambda::Url")[0].want(t, "AuthType", "AWS_IAM")
		topic := tm.all(t, "AWS::SNS::TopicPolicy")
		if !strings.Contains(plain(topic), `"aws:SecureTransport":"false"`) {
			t.Error("the topic takes messages without TLS")
		}
		rule := tm.one(t, "AWS::Events::Rule", "EdgeBroadcastEvents")
		rule.want(t, "EventPattern.detail-type", []string{"tideline.broadcast"})
		invoke := tm.all(t, "AWS::Lambda::EventInvokeConfig")[0]
		// Past that age the idempotency ids may be forgotten, and a late delivery would publish twice.
		invoke.want(t, "MaximumEventAgeInSeconds", limit.OutboxRecordAge.Seconds())
		if invoke.get("DestinationConfig.OnFailure.Destination") == nil {
			t.Error("failed invocations are lost")
		}
	})
}

func TestGuestsAreLetInOnlyWhereTheDeploymentSaysSo(t *testing.T) {
	for name, guests := range map[string]string{"dev": "on", "prod": "off", "serverless": "off", "alb": "on"} {
		f := synth(t, name).one(t, "AWS::Lambda::Function", "EdgeSessionFunction")
		f.want(t, "Environment.Variables.GUESTS", guests)
		if issuers := f.get("Environment.Variables.OIDC_ISSUERS"); (issuers != nil) != (guests == "off") {
			t.Errorf("%s: issuers %s", name, plain(issuers))
		}
	}
}

func TestTheUserPoolSendsPeopleBackToThisDeploymentOnly(t *testing.T) {
	client := synth(t, "serverless").all(t, "AWS::Cognito::UserPoolClient")[0]
	if urls := client.get("CallbackURLs").([]any); len(urls) != 1 || !mentions(urls[0], "EdgeFront") {
		t.Errorf("callback %s", plain(urls))
	}
	client.want(t, "GenerateSecret", false)
	client.want(t, "AllowedOAuthFlows", []string{"code"})
}
