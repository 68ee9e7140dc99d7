package aws_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"tideline/shared/bus/aws"
)

func TestTheTokenIsAPresignedConnect(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	provider := credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "session/token+=")
	id := aws.Identity{User: "tideline-dev-node-valkey", Cache: "tideline-dev", Region: "eu-west-1"}
	user, password, err := aws.Credentials(id, provider, func() time.Time { return at })(t.Context())
	if err != nil || user != id.User {
		t.Fatalf("%q, %v", user, err)
	}
	if !strings.HasPrefix(password, "tideline-dev/?") {
		t.Errorf("the token begins %.30q, want the cache and no scheme", password)
	}
	u, err := url.Parse("http://" + password)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Action": "connect", "User": id.User, "X-Amz-Expires": "900", "X-Amz-Date": "20261122T100000Z", "X-Amz-Security-Token": "session/token+=",
		"X-Amz-Credential": "AKIDEXAMPLE/20261122/eu-west-1/elasticache/aws4_request", "X-Amz-SignedHeaders": "host", "ResourceType": ""} {
		if got := u.Query().Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if len(u.Query().Get("X-Amz-Signature")) != 64 {
		t.Error("not signed")
	}
	id.Serverless = true
	if _, password, err = aws.Credentials(id, provider, nil)(t.Context()); err != nil || !strings.Contains(password, "ResourceType=ServerlessCache") {
		t.Errorf("serverless: %.80q, %v", password, err)
	}
}

func TestEachDialSignsAnewAndFailsWithTheCredentials(t *testing.T) {
	n := 0
	broken := errors.New("no credentials")
	f := aws.Credentials(aws.Identity{User: "u", Cache: "c", Region: "r"}, sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) {
		if n++; n > 2 {
			return sdk.Credentials{}, broken
		}
		return sdk.Credentials{AccessKeyID: strings.Repeat("A", n), SecretAccessKey: "s"}, nil
	}), func() time.Time { return time.Unix(0, 0) })
	_, first, _ := f(t.Context())
	_, second, _ := f(t.Context())
	if first == second {
		t.Error("the second dial got the first's token")
	}
	if _, _, err := f(t.Context()); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
