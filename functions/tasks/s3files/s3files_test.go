package s3files_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	failed "tideline/functions/outbox/s3files"
	"tideline/functions/tasks"
	"tideline/functions/tasks/s3files"
	"tideline/test/leak"
	"tideline/test/mototest"
)

func TestMain(m *testing.M) { leak.Main(m) }

func pathStyle(o *s3.Options) { o.UsePathStyle = true }

func newBuckets(t *testing.T) (*s3files.Bucket, *failed.Bucket) {
	t.Helper()
	server := mototest.Start(t)
	c := server.Config()
	if _, err := s3.NewFromConfig(c, pathStyle).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("files")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s3files.New(c, "files", pathStyle), failed.New(c, "files", pathStyle)
}

func send(t *testing.T, l tasks.Link, body string) (int, http.Header, string) {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), l.Method, l.URL, content)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range l.Headers {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(raw)
}

func TestFilesInABucket(t *testing.T) {
	b, _ := newBuckets(t)
	const key = "imports/u/x"
	if _, err := b.Get(t.Context(), key); !errors.Is(err, tasks.ErrNoFile) {
		t.Errorf("a file that is not there: %v", err)
	}
	up, err := b.UploadLink(t.Context(), key, "text/csv", 5, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(up.URL)
	if err != nil {
		t.Fatal(err)
	}
	// S3 refuses another size or type, because they are signed; the stand-in does not check it.
	signed := u.Query().Get("X-Amz-SignedHeaders")
	if up.Method != "PUT" || !strings.Contains(signed, "content-length") || !strings.Contains(signed, "content-type") || u.Query().Get("X-Amz-Expires") != "600" {
		t.Errorf("link %s %s signs %q", up.Method, up.URL, signed)
	}
	if up.Headers["Content-Type"] != "text/csv" || len(up.Headers) != 1 {
		t.Errorf("headers to send: %v", up.Headers)
	}
	if status, _, body := send(t, up, "title"); status != 200 {
		t.Fatalf("upload: %d %s", status, body)
	}
	f, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(f)
	if errors.Join(err, f.Close()) != nil || string(raw) != "title" {
		t.Errorf("read %q, %v", raw, err)
	}
	if err := b.Put(t.Context(), "exports/u/y.json", "application/json", 3, strings.NewReader("[]\n")); err != nil {
		t.Fatal(err)
	}
	down, err := b.DownloadLink(t.Context(), "exports/u/y.json", "application/json", "todos-2026.json", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	status, header, body := send(t, down, "")
	if status != 200 || body != "[]\n" || header.Get("Content-Disposition") != "attachment; filename=todos-2026.json" {
		t.Errorf("download: %d %q %v", status, body, header)
	}
}

// The page's Content-Security-Policy and the bucket's CORS rule are written for this origin; cdk/edge.BucketOrigin spells the same. Signing asks nobody.
func TestLinksLeadToTheBucketsOwnHostInItsRegion(t *testing.T) {
	key := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
	})
	for _, region := range []string{"eu-central-1", "us-east-1"} {
		b := s3files.New(aws.Config{Region: region, Credentials: key}, "files")
		up, err1 := b.UploadLink(t.Context(), "imports/u/x", "text/csv", 5, time.Minute)
		down, err2 := b.DownloadLink(t.Context(), "exports/u/x", "text/csv", "x.csv", time.Minute)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		for _, link := range []string{up.URL, down.URL} {
			if !strings.HasPrefix(link, "https://files.s3."+region+".amazonaws.com/") {
				t.Errorf("%s: %s", region, link)
			}
		}
	}
}

func TestFailedRecordsInABucket(t *testing.T) {
	put, b := newBuckets(t)
	for _, key := range []string{"a", "b/c", "d"} {
		if err := put.Put(t.Context(), key, "application/json", int64(len(key)), strings.NewReader(key)); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := b.List(t.Context(), 2)
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v, %v", keys, err)
	}
	if raw, err := b.Read(t.Context(), "b/c", 3); err != nil || string(raw) != "b/c" {
		t.Errorf("%q, %v", raw, err)
	}
	if _, err := b.Read(t.Context(), "b/c", 2); err == nil {
		t.Error("read more than allowed")
	}
	if _, err := b.Read(t.Context(), "none", 9); err == nil {
		t.Error("read what is not there")
	}
	for _, key := range []string{"a", "b/c"} {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := b.List(t.Context(), 9); err != nil || len(keys) != 1 || keys[0] != "d" {
		t.Errorf("%v, %v", keys, err)
	}
}
