package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"tideline/cdk/operate/aws"
	"tideline/test/mototest"
)

// ourAccount is moto's: a stand-in that serves these APIs, and checks neither signatures nor rights.
func ourAccount(t *testing.T) *aws.Account {
	t.Helper()
	return accountWith(t, mototest.Start(t).URL, usual)
}

// accountWith has other quotas. The settings that it leaves in the environment would mislead a moto that is started after it.
func accountWith(t *testing.T, moto string, q quotas) *aws.Account {
	t.Helper()
	server := withTheRest(t, moto, q)
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true"} {
		t.Setenv(name, value)
	}
	account, err := aws.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return account
}

// quotas are what an account has that moto does not know: its answers of Service Quotas and Lambda.
type quotas struct{ processors, concurrency string }

// usual is an account that somebody has used for a while.
var usual = quotas{processors: `{"Quota":{"QuotaCode":"L-1216C47A","Value":64.0}}`, concurrency: `{"AccountLimit":{"ConcurrentExecutions":1000,"UnreservedConcurrentExecutions":1000}}`}

// withTheRest answers the actions that moto does not know, as the services do.
func withTheRest(t *testing.T, moto string, q quotas) string {
	t.Helper()
	to, err := url.Parse(moto)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if bytes.Contains(body, []byte("Action=UpdateTerminationProtection")) {
			_, _ = io.WriteString(w, "<UpdateTerminationProtectionResponse><UpdateTerminationProtectionResult/></UpdateTerminationProtectionResponse>")
			return
		}
		switch target := r.Header.Get("X-Amz-Target"); {
		case r.Method == http.MethodGet && r.URL.Path == "/2016-08-19/account-settings":
			_, _ = io.WriteString(w, q.concurrency)
			return
		case target == "ServiceQuotasV20190624.GetServiceQuota" && bytes.Contains(body, []byte(`"ec2"`)):
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"__type":"NoSuchResourceException","message":"The request failed because the specified service does not exist."}`)
			return
		case target == "ServiceQuotasV20190624.GetAWSDefaultServiceQuota" && bytes.Contains(body, []byte(`"L-1216C47A"`)):
			_, _ = io.WriteString(w, q.processors)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// deploy a stack with a table and a bucket, retained or not, as a Tideline stack would be.
func deploy(t *testing.T, account *aws.Account, stage, deletion string, outputs map[string]string) {
	t.Helper()
	tags := []any{map[string]string{"Key": "tideline:app", "Value": "tideline"}, map[string]string{"Key": "tideline:stage", "Value": stage}}
	declared := map[string]any{}
	for name, value := range outputs {
		declared[name] = map[string]any{"Value": value}
	}
	body, err := json.Marshal(map[string]any{"Outputs": declared, "Resources": map[string]any{
		"Todos": map[string]any{"Type": "AWS::DynamoDB::Table", "DeletionPolicy": deletion, "Properties": map[string]any{"BillingMode": "PAY_PER_REQUEST", "Tags": tags,
			"DeletionProtectionEnabled": deletion == "Retain",
			"AttributeDefinitions":      []any{map[string]string{"AttributeName": "pk", "AttributeType": "S"}}, "KeySchema": []any{map[string]string{"AttributeName": "pk", "KeyType": "HASH"}}}},
		"Files": map[string]any{"Type": "AWS::S3::Bucket", "DeletionPolicy": deletion, "Properties": map[string]any{"Tags": tags}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{}
	if err := account.Ask(t.Context(), "cloudformation", "CreateStack", url.Values{"StackName": {"tideline-" + stage}, "TemplateBody": {string(body)}}, &answer); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out)
	return out.String(), err
}

func TestDoctorFindsAnAccountInOrder(t *testing.T) {
	ourAccount(t)
	out, err := command(t, "doctor")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range []string{"ok  settings", "ok  credentials            account 123456789012, region eu-central-1", "ok  bootstrap              none yet",
		"ok  stack                  tideline-dev is not there yet", "ok  zones                  eu-central-1a, eu-central-1b", "ok  instance type          t4g.small (arm64)", "ok  vpc                    1 of 5 are used",
		"ok  vCPU quota             at most 10 of 64;", "ok  Lambda concurrency     1000 at a time"} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}

func TestDoctorRefusesWhatWouldFail(t *testing.T) {
	account := ourAccount(t)
	deploy(t, account, "dev", "Delete", map[string]string{"EdgeMode": "cloudfront", "Zones": "default", "VPC": "default", "Version": "v1"})
	for args, want := range map[string]string{
		"-c edge=alb -c domainName=a.example.com -c certificateArn=arn:aws:acm:eu-central-1:123456789012:certificate/0a": `EdgeMode="cloudfront" and can't become "alb"`,
		"-c zones=eu-central-1b,eu-central-1c": `Zones="default" and can't become "eu-central-1b,eu-central-1c"`,
		"-c zones=us-east-1a,us-east-1b":       "us-east-1a, us-east-1b: not in this account",
		"-c nodeInstanceType=u7i-12tb.large":   "not",
		"-c what=ever":                         "what=ever: no such setting",
		"-c stage=other -c vpcId=vpc-0123456789abcdef0 -c zones=eu-central-1a,eu-central-1b -c subnetIds=subnet-01234567,subnet-01234568": "vpc-0123456789abcdef0 is not in this region",
	} {
		out, err := command(t, append([]string{"doctor"}, strings.Fields(args)...)...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	if out, err := command(t, "doctor"); err != nil || !strings.Contains(out, "version v1") {
		t.Errorf("the same again: %v\n%s", err, out)
	}
}

func TestDoctorLooksForTheServerAPIsCallers(t *testing.T) {
	account := ourAccount(t)
	var made struct {
		ID string `xml:"groupId"`
	}
	vpcs, err := account.VPCs(t.Context())
	if err != nil || len(vpcs) == 0 {
		t.Fatal(vpcs, err)
	}
	if err := account.Ask(t.Context(), "ec2", "CreateSecurityGroup", url.Values{"GroupName": {"callers"}, "GroupDescription": {"callers"}, "VpcId": {vpcs[0]}}, &made); err != nil {
		t.Fatal(err)
	}
	deploy(t, account, "same", "Delete", map[string]string{"EdgeMode": "cloudfront", "Zones": "default", "VPC": "default", "NetworkID": vpcs[0]})
	deploy(t, account, "else", "Delete", map[string]string{"EdgeMode": "cloudfront", "Zones": "default", "VPC": "default", "NetworkID": "vpc-other"})
	for args, want := range map[string]string{
		"-c stage=same -c serverApiSecurityGroup=" + made.ID:      "ok  server API             " + made.ID + " may call it",
		"-c stage=else -c serverApiSecurityGroup=" + made.ID:      "?   server API             " + made.ID + " is in " + vpcs[0],
		"-c stage=new -c serverApiSecurityGroup=" + made.ID:       "no  server API             " + made.ID + " is in " + vpcs[0] + ", and this stack's VPC is not made yet",
		"-c stage=same -c serverApiSecurityGroup=sg-0123456789ab": "no  server API             sg-0123456789ab is not in this region",
	} {
		if out, err := command(t, append([]string{"doctor"}, strings.Fields(args)...)...); !strings.Contains(out, want) || (err != nil) != strings.HasPrefix(want, "no") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}

func TestPlanSaysWhatStaysByTheDeployedTemplate(t *testing.T) {
	account := ourAccount(t)
	deploy(t, account, "kept", "Retain", map[string]string{"EdgeMode": "cloudfront"})
	deploy(t, account, "gone", "Delete", map[string]string{"EdgeMode": "cloudfront"})
	out, err := command(t, "plan", "-c", "stage=kept")
	stays, goes, _ := strings.Cut(out, "goes, with everything in it")
	if err != nil || strings.Count(stays, "tideline-kept-") != 2 || !strings.Contains(goes, "nothing") || !strings.Contains(out, "make purge STAGE=kept") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = command(t, "plan", "-c", "stage=gone")
	stays, goes, _ = strings.Cut(out, "goes, with everything in it")
	if err != nil || strings.Count(goes, "tideline-gone-") != 2 || !strings.Contains(stays, "nothing") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := command(t, "plan", "-c", "stage=never"); err == nil || !strings.Contains(err.Error(), "there is no stack tideline-never") {
		t.Errorf("%v", err)
	}
}

func TestPurgeWaitsForTheStackAndForTheStageToBeSaidTwice(t *testing.T) {
	account := ourAccount(t)
	deploy(t, account, "old", "Retain", nil)
	deploy(t, account, "other", "Retain", nil)
	if _, err := command(t, "purge", "-c", "stage=old", "--confirm=old"); err == nil || !strings.Contains(err.Error(), "is still there") {
		t.Errorf("with the stack: %v", err)
	}
	var answer struct{}
	if err := account.Ask(t.Context(), "cloudformation", "DeleteStack", url.Values{"StackName": {"tideline-old"}}, &answer); err != nil {
		t.Fatal(err)
	}
	left := func(stage string) []string {
		arns, err := account.Tagged(t.Context(), map[string]string{"tideline:app": "tideline", "tideline:stage": stage})
		if err != nil {
			t.Fatal(err)
		}
		return arns
	}
	if n := len(left("old")); n == 0 {
		t.Fatal("the stack retained nothing")
	}
	for _, args := range [][]string{{}, {"--confirm=other"}} {
		out, err := command(t, append([]string{"purge", "-c", "stage=old"}, args...)...)
		if err == nil || !strings.Contains(out, "These would be deleted") || len(left("old")) == 0 {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	out, err := command(t, "purge", "-c", "stage=old", "--confirm=old")
	if err != nil || len(left("old")) != 0 || len(left("other")) == 0 {
		t.Errorf("%v, left %v\n%s", err, left("old"), out)
	}
}

func TestDestroyActsOnlyWhenTheStageIsSaidTwice(t *testing.T) {
	account := ourAccount(t)
	deploy(t, account, "gone", "Delete", nil)
	out, err := command(t, "destroy", "-c", "stage=gone")
	if err == nil || !strings.Contains(err.Error(), "nothing was destroyed") || !strings.Contains(out, "goes, with everything in it") {
		t.Errorf("%v\n%s", err, out)
	}
	if stack, err := account.Stack(t.Context(), "tideline-gone"); err != nil || stack.Status == "" {
		t.Fatalf("%+v, %v", stack, err)
	}
	out, err = command(t, "destroy", "-c", "stage=gone", "--confirm=gone")
	if err != nil || !strings.Contains(out, "tideline-gone is gone") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What the credentials may not ask is unknown; it must not keep anybody from deploying, nor look like good news.
func TestWhatIsDeniedIsUnknown(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`))
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_REGION", "eu-central-1")
	account, err := aws.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := &report{out: &out}
	bootstrapped(t.Context(), r, account)
	if r.wrong != 0 || !strings.HasPrefix(out.String(), "?   bootstrap") {
		t.Errorf("%d wrong\n%s", r.wrong, &out)
	}
}

func TestArgumentsThatMakeNoSenseAreNamed(t *testing.T) {
	for args, want := range map[string]string{"": "usage:", "fly": "usage:", "doctor -c": "-c needs name=value", "doctor -c x": "-c x: not name=value",
		"verify": "verify what?", "plan": "which stage?", "doctor --force": `unknown argument "--force"`} {
		if err := run(context.Background(), strings.Fields(args), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}
