// Package aws asks AWS's query APIs the few questions that deploying takes, signed with the SDK's signer.
//
// The SDK's own clients of these services would be the largest part of the project's dependencies by far; the questions are a dozen reads.
package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
)

// ErrDenied says that the credentials may not ask this; the answer is unknown, not bad. Test with errors.Is.
var ErrDenied = errors.New("not allowed to ask")

// Error is what a service answered instead. Code is the service's own.
type Error struct {
	Status  int
	Code    string
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Message) }

// Is makes refusals ErrDenied.
func (e *Error) Is(target error) bool {
	return target == ErrDenied && (strings.HasPrefix(e.Code, "AccessDenied") || e.Code == "UnauthorizedOperation")
}

const (
	callTimeout = 20 * time.Second
	answerBytes = 16 << 20
)

// Account asks on behalf of one account in one region. It is safe for concurrent use.
type Account struct {
	Region string
	creds  aws.CredentialsProvider
	signer *v4.Signer
	client *http.Client
	// endpoint overrides https://<service>.<region>.amazonaws.com, for tests (AWS_ENDPOINT_URL, as in the SDK).
	endpoint string
}

// Open finds credentials and region as the SDK does. Nothing is asked yet.
func Open(ctx context.Context) (*Account, error) {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	if c.Region == "" {
		return nil, errors.New("no region: set AWS_REGION, or a region in the profile")
	}
	return &Account{Region: c.Region, creds: c.Credentials, signer: v4.NewSigner(), client: &http.Client{Timeout: callTimeout},
		endpoint: os.Getenv("AWS_ENDPOINT_URL")}, nil
}

// versions of the query APIs.
var versions = map[string]string{"sts": "2011-06-15", "cloudformation": "2010-05-15", "ec2": "2016-11-15",
	"elasticloadbalancing": "2015-12-01", "monitoring": "2010-08-01"}

// Ask calls an action of a query API and decodes its XML answer into out.
func (a *Account) Ask(ctx context.Context, service, action string, parameters url.Values, out any) error {
	form := url.Values{"Action": {action}, "Version": {versions[service]}}
	for k, v := range parameters {
		form[k] = v
	}
	raw, err := a.send(ctx, request{http.MethodPost, service, action, "/", []byte(form.Encode()), http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}})
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s %s: %w", service, action, err)
	}
	return nil
}

// Call calls an action of a JSON API. Its target is what the service's own protocol calls X-Amz-Target; out may be nil.
func (a *Account) Call(ctx context.Context, service, target string, in map[string]any, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s %s: %w", service, target, err)
	}
	raw, err := a.send(ctx, request{http.MethodPost, service, target, "/", body, http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {target}}})
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s %s: %w", service, target, err)
	}
	return nil
}

// request to a service; the action is for errors.
type request struct {
	method, service, action, path string
	body                          []byte
	header                        http.Header
}

// send signs and sends, and answers the body of a good answer; a refusal is an *Error.
func (a *Account) send(ctx context.Context, q request) ([]byte, error) {
	to := a.endpoint
	if to == "" {
		to = "https://" + q.service + "." + a.Region + ".amazonaws.com"
	}
	r, err := http.NewRequestWithContext(ctx, q.method, to+q.path, bytes.NewReader(q.body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", q.service, q.action, err)
	}
	r.Header = q.header
	creds, err := a.creds.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("no credentials: %w", err)
	}
	sum := sha256.Sum256(q.body)
	if err := a.signer.SignHTTP(ctx, creds, r, hex.EncodeToString(sum[:]), q.service, a.Region, time.Now()); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	answer, err := a.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", q.service, q.action, err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, answerBytes))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", q.service, q.action, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %w", q.service, q.action, failure(answer.StatusCode, raw))
	}
	return raw, nil
}

// failure reads the forms that the services use: XML with Error, or Errors/Error (EC2), or JSON.
func failure(status int, raw []byte) *Error {
	var form struct {
		Code    string `xml:"Error>Code"`
		Message string `xml:"Error>Message"`
		EC2     struct {
			Code    string `xml:"Code"`
			Message string `xml:"Message"`
		} `xml:"Errors>Error"`
	}
	e := &Error{Status: status, Code: http.StatusText(status)}
	var object struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &object) == nil && object.Type != "" {
		e.Code, e.Message = object.Type[strings.LastIndex(object.Type, "#")+1:], object.Message
		return e
	}
	if xml.Unmarshal(raw, &form) == nil {
		switch {
		case form.Code != "":
			e.Code, e.Message = form.Code, form.Message
		case form.EC2.Code != "":
			e.Code, e.Message = form.EC2.Code, form.EC2.Message
		}
	}
	return e
}
