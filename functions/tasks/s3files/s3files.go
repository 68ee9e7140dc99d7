// Package s3files keeps the files of tasks in a bucket, reached through its gateway endpoint, with presigned links.
package s3files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"tideline/functions/tasks"
)

// Bucket implements tasks.Files. It is safe for concurrent use. Links are signed without asking anybody; they die early if the credentials that
// signed them do.
type Bucket struct {
	client *s3.Client
	name   string
}

var _ tasks.Files = (*Bucket)(nil)

// New makes a Bucket of that name.
func New(c aws.Config, name string, options ...func(*s3.Options)) *Bucket {
	return &Bucket{s3.NewFromConfig(c, options...), name}
}

// Put implements tasks.Files.
func (b *Bucket) Put(ctx context.Context, key, contentType string, size int64, content io.ReadSeeker) error {
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &b.name, Key: &key, Body: content, ContentLength: &size, ContentType: &contentType})
	if err != nil {
		return fmt.Errorf("%w: put %s: %w", tasks.ErrFilesUnavailable, key, err)
	}
	return nil
}

// Get implements tasks.Files.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	var none *types.NoSuchKey
	if errors.As(err, &none) {
		return nil, fmt.Errorf("%w: %s", tasks.ErrNoFile, key)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: get %s: %w", tasks.ErrFilesUnavailable, key, err)
	}
	return out.Body, nil
}

// UploadLink implements tasks.Files. The size is part of what is signed: S3 refuses any other.
func (b *Bucket) UploadLink(ctx context.Context, key, contentType string, size int64, ttl time.Duration) (tasks.Link, error) {
	req, err := s3.NewPresignClient(b.client).PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &b.name, Key: &key, ContentLength: &size, ContentType: &contentType},
		s3.WithPresignExpires(ttl))
	return link(req, ttl, err)
}

// DownloadLink implements tasks.Files.
func (b *Bucket) DownloadLink(ctx context.Context, key, contentType, name string, ttl time.Duration) (tasks.Link, error) {
	disposition := mime.FormatMediaType("attachment", map[string]string{"filename": name})
	req, err := s3.NewPresignClient(b.client).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key, ResponseContentType: &contentType,
		ResponseContentDisposition: &disposition}, s3.WithPresignExpires(ttl))
	return link(req, ttl, err)
}

func link(req *v4.PresignedHTTPRequest, ttl time.Duration, err error) (tasks.Link, error) {
	if err != nil {
		return tasks.Link{}, fmt.Errorf("sign link: %w", err)
	}
	l := tasks.Link{URL: req.URL, Method: req.Method, Expires: time.Now().Add(ttl).UTC().Truncate(time.Second)}
	for name, values := range req.SignedHeader {
		// Host and Content-Length are the sender's to set, and a browser lets nobody set them by hand.
		if canonical := http.CanonicalHeaderKey(name); canonical != "Host" && canonical != "Content-Length" && len(values) > 0 {
			if l.Headers == nil {
				l.Headers = map[string]string{}
			}
			l.Headers[canonical] = values[0]
		}
	}
	return l, nil
}
