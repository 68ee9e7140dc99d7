package lambdatest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Events have the shapes that AWS sends, field for field, recorded ones in testdata; only identifiers and contents vary.

type object = map[string]any

func encode(t T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("lambdatest: %v", err)
	}
	return b
}

// textual are the types whose bodies a load balancer hands over as text; all others are base64.
func textual(contentType string) bool {
	ct, _, _ := strings.Cut(contentType, ";")
	ct = strings.TrimSpace(strings.ToLower(ct))
	return strings.HasPrefix(ct, "text/") || ct == "application/json" || ct == "application/javascript" || ct == "application/xml"
}

func body(t T, r *http.Request) (text string, isBase64 bool) {
	t.Helper()
	if r.Body == nil {
		return "", false
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("lambdatest: %v", err)
	}
	if len(b) > 0 && (!textual(r.Header.Get("Content-Type")) || !utf8.Valid(b)) {
		return base64.StdEncoding.EncodeToString(b), true
	}
	return string(b), false
}

// ALB makes the event of a load balancer for a request: path and query as they were sent, never decoded. Multi is the target group's attribute
// lambda.multi_value_headers.enabled, without which the last of several values is all that comes.
func ALB(t T, r *http.Request, multi bool) []byte {
	t.Helper()
	text, is64 := body(t, r)
	e := object{"requestContext": object{"elb": object{
		"targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/functions/49e9d65c45c6791a"}},
		"httpMethod": r.Method, "path": r.URL.EscapedPath(), "body": text, "isBase64Encoded": is64}
	headers := map[string][]string{"host": {r.Host}, "x-forwarded-for": {"203.0.113.7, 198.51.100.9"}, "x-forwarded-port": {"443"},
		"x-forwarded-proto": {"https"}, "x-amzn-trace-id": {"Root=1-5c536348-3d683b8b04734faae651f476"}}
	for k, v := range r.Header {
		headers[strings.ToLower(k)] = v
	}
	query := map[string][]string{}
	if r.URL.RawQuery != "" {
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			if pair == "" {
				continue
			}
			k, v, _ := strings.Cut(pair, "=")
			query[k] = append(query[k], v)
		}
	}
	if multi {
		e["multiValueHeaders"], e["multiValueQueryStringParameters"] = headers, query
	} else {
		e["headers"], e["queryStringParameters"] = last(headers), last(query)
	}
	return encode(t, e)
}

func last(in map[string][]string) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if len(v) > 0 {
			out[k] = v[len(v)-1]
		}
	}
	return out
}

// ALBHealthCheck is what a load balancer sends to see whether a function is healthy.
func ALBHealthCheck(t T, path string) []byte {
	t.Helper()
	return encode(t, object{"requestContext": object{"elb": object{
		"targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/functions/49e9d65c45c6791a"}},
		"httpMethod": "GET", "path": path, "multiValueQueryStringParameters": object{},
		"multiValueHeaders": object{"user-agent": []string{"ELB-HealthChecker/2.0"}}, "body": "", "isBase64Encoded": false})
}

// FunctionURL makes the event of a function URL, payload format 2.0: header values joined by commas, cookies apart.
func FunctionURL(t T, r *http.Request) []byte {
	t.Helper()
	text, is64 := body(t, r)
	headers := map[string]string{"host": r.Host, "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https", "x-forwarded-port": "443",
		"x-amzn-trace-id": "Root=1-5c536348-3d683b8b04734faae651f476"}
	var cookies []string
	for k, v := range r.Header {
		if k == "Cookie" {
			for _, line := range v {
				cookies = append(cookies, strings.Split(line, "; ")...)
			}
			continue
		}
		headers[strings.ToLower(k)] = strings.Join(v, ",")
	}
	e := object{"version": "2.0", "routeKey": "$default", "rawPath": r.URL.EscapedPath(), "rawQueryString": r.URL.RawQuery, "headers": headers,
		"requestContext": object{"accountId": "123456789012", "apiId": "abcdefgh", "authorizer": object{"iam": object{
			"accessKey": "AKIAIOSFODNN7EXAMPLE", "accountId": "123456789012", "callerId": "AIDACKCEVSQ6C2EXAMPLE", "cognitoIdentity": nil,
			"principalOrgId": nil, "userArn": "arn:aws:iam::123456789012:user/example", "userId": "AIDACKCEVSQ6C2EXAMPLE"}},
			"domainName": "abcdefgh.lambda-url.eu-central-1.on.aws", "domainPrefix": "abcdefgh", "http": object{"method": r.Method,
				"path": r.URL.EscapedPath(), "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": r.UserAgent()},
			"requestId": "e1506fd5-9e7b-434f-bd42-4f8fa224b599", "routeKey": "$default", "stage": "$default",
			"time": "12/Mar/2026:19:03:58 +0000", "timeEpoch": 1773342238390},
		"body": text, "isBase64Encoded": is64}
	if cookies != nil {
		e["cookies"] = cookies
	}
	return encode(t, e)
}

// SQS makes the event of a queue for messages; ids are m0, m1, …
func SQS(t T, bodies ...string) []byte {
	t.Helper()
	records := make([]object, len(bodies))
	for i, b := range bodies {
		records[i] = object{"messageId": fmt.Sprintf("m%d", i), "receiptHandle": fmt.Sprintf("receipt-%d", i), "body": b,
			"attributes": object{"ApproximateReceiveCount": "1", "SentTimestamp": "1773342238390", "SenderId": "AIDACKCEVSQ6C2EXAMPLE",
				"ApproximateFirstReceiveTimestamp": "1773342238395"},
			"messageAttributes": object{}, "md5OfBody": "098f6bcd4621d373cade4e832627b4f6", "eventSource": "aws:sqs",
			"eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:tasks", "awsRegion": "eu-central-1"}
	}
	return encode(t, object{"Records": records})
}

// SNS makes the event of a topic with one message.
func SNS(t T, id, message string) []byte {
	t.Helper()
	return encode(t, object{"Records": []object{{"EventVersion": "1.0", "EventSource": "aws:sns",
		"EventSubscriptionArn": "arn:aws:sns:eu-central-1:123456789012:broadcast:21be56ed-a058-49f5-8c98-aedd2564c486",
		"Sns": object{"SignatureVersion": "1", "Timestamp": "2026-03-12T19:03:58.390Z", "Signature": "EXAMPLE",
			"SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-ac565b8b.pem", "MessageId": id,
			"Message": message, "MessageAttributes": object{}, "Type": "Notification", "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/",
			"TopicArn": "arn:aws:sns:eu-central-1:123456789012:broadcast", "Subject": nil}}}})
}

// EventBridge makes an event of a bus.
func EventBridge(t T, id, source, detailType string, detail any) []byte {
	t.Helper()
	return encode(t, object{"version": "0", "id": id, "detail-type": detailType, "source": source, "account": "123456789012",
		"time": "2026-03-12T19:03:58Z", "region": "eu-central-1", "resources": []string{}, "detail": detail})
}

// StreamRecord is one change of a table. Images are in DynamoDB's JSON: {"id": {"S": "1"}}. EventName is INSERT, MODIFY or REMOVE.
type StreamRecord struct {
	EventName             string
	Keys, OldImage, Image object
	SequenceNumber        string
	ApproximateCreation   float64 // seconds since 1970
	RemovedByTTL          bool
}

// Stream makes the event of a DynamoDB stream.
func Stream(t T, records ...StreamRecord) []byte {
	t.Helper()
	out := make([]object, len(records))
	for i, r := range records {
		change := object{"ApproximateCreationDateTime": r.ApproximateCreation, "Keys": r.Keys, "SequenceNumber": r.SequenceNumber,
			"SizeBytes": 26, "StreamViewType": "NEW_AND_OLD_IMAGES"}
		if r.Image != nil {
			change["NewImage"] = r.Image
		}
		if r.OldImage != nil {
			change["OldImage"] = r.OldImage
		}
		out[i] = object{"eventID": fmt.Sprintf("event-%d", i), "eventName": r.EventName, "eventVersion": "1.1", "eventSource": "aws:dynamodb",
			"awsRegion": "eu-central-1", "dynamodb": change,
			"eventSourceARN": "arn:aws:dynamodb:eu-central-1:123456789012:table/tideline/stream/2026-03-12T00:00:00.000"}
		if r.RemovedByTTL {
			out[i]["userIdentity"] = object{"principalId": "dynamodb.amazonaws.com", "type": "Service"}
		}
	}
	return encode(t, object{"Records": out})
}

// Response is what a load balancer or a function URL makes of a function's answer.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Decode does to an answer what the load balancer does, and what a function URL does: the status line, all headers and cookies, the decoded body.
// An answer in the wrong form, which would be a 502, fails the test.
func Decode(t T, payload []byte, multi bool) Response {
	t.Helper()
	var w struct {
		StatusCode        int                 `json:"statusCode"`
		StatusDescription *string             `json:"statusDescription"`
		Headers           map[string]string   `json:"headers"`
		MultiValueHeaders map[string][]string `json:"multiValueHeaders"`
		Cookies           []string            `json:"cookies"`
		Body              string              `json:"body"`
		IsBase64Encoded   *bool               `json:"isBase64Encoded"`
	}
	if err := json.Unmarshal(payload, &w); err != nil {
		t.Fatalf("answer %.300q: %v", payload, err)
	}
	if w.StatusCode < 200 || w.IsBase64Encoded == nil || (multi && w.Headers != nil) || (!multi && w.MultiValueHeaders != nil) {
		t.Fatalf("answer in the wrong form: %.300s", payload)
	}
	out := Response{Status: w.StatusCode, Header: http.Header{}, Body: []byte(w.Body)}
	if *w.IsBase64Encoded {
		var err error
		if out.Body, err = base64.StdEncoding.DecodeString(w.Body); err != nil {
			t.Fatalf("lambdatest: %v", err)
		}
	}
	for k, v := range w.Headers {
		out.Header.Set(k, v)
	}
	for k, values := range w.MultiValueHeaders {
		for _, v := range values {
			out.Header.Add(k, v)
		}
	}
	for _, c := range w.Cookies {
		out.Header.Add("Set-Cookie", c)
	}
	return out
}

// Request makes a request for ALB and FunctionURL; target may have a query, both percent-encoded.
func Request(t T, method, target, body string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatalf("lambdatest: %v", err)
	}
	r, err := http.NewRequestWithContext(context.Background(), method, "http://app.example.org/", strings.NewReader(body))
	if err != nil {
		t.Fatalf("lambdatest: %v", err)
	}
	r.URL = u
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}
