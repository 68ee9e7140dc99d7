// Package s3files reads the records that Lambda kept in a bucket when it gave up on them.
package s3files

import (
	"context"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"tideline/functions/outbox"
)

// Bucket implements outbox.Failures. It is safe for concurrent use.
type Bucket struct {
	client *s3.Client
	name   string
}

var _ outbox.Failures = (*Bucket)(nil)

// New makes a Bucket of that name.
func New(c aws.Config, name string, options ...func(*s3.Options)) *Bucket {
	return &Bucket{s3.NewFromConfig(c, options...), name}
}

// List implements outbox.Failures.
func (b *Bucket) List(ctx context.Context, limit int) ([]string, error) {
	out, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &b.name, MaxKeys: aws.Int32(int32(limit))})
	if err != nil {
		return nil, fmt.Errorf("list bucket %s: %w", b.name, err)
	}
	keys := make([]string, 0, len(out.Contents))
	for _, o := range out.Contents {
		keys = append(keys, aws.ToString(o.Key))
	}
	return keys, nil
}

// Read implements outbox.Failures.
func (b *Bucket) Read(ctx context.Context, key string, maxBytes int64) ([]byte, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(out.Body, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(len(raw)) > maxBytes {
		return nil, fmt.Errorf("read %s: more than %d bytes", key, maxBytes)
	}
	return raw, nil
}

// Delete implements outbox.Failures.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if _, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: &key}); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}
