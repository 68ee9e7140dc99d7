// Package aws signs the tokens with which ElastiCache knows who connects.
package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// tokenTTL is the longest that ElastiCache accepts. A token also dies with the credentials that signed it, so none is kept: each dial gets its own.
const tokenTTL = 15 * time.Minute

// Identity says which ElastiCache user connects to which cache.
type Identity struct {
	User string // user id, which equals the user name
	// Cache is the replication group's id or the serverless cache's name, in lower case.
	Cache      string
	Serverless bool
	Region     string
}

// Credentials answers a function for bus.Options.Credentials. It is safe for concurrent use. Nil now means time.Now.
func Credentials(id Identity, provider aws.CredentialsProvider, now func() time.Time) func(context.Context) (user, password string, err error) {
	if now == nil {
		now = time.Now
	}
	signer := v4.NewSigner()
	nothing := sha256.Sum256(nil)
	return func(ctx context.Context) (string, string, error) {
		q := url.Values{"Action": {"connect"}, "User": {id.User}, "X-Amz-Expires": {fmt.Sprint(int(tokenTTL / time.Second))}}
		if id.Serverless {
			q.Set("ResourceType", "ServerlessCache")
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+id.Cache+"/?"+q.Encode(), nil)
		if err != nil {
			return "", "", fmt.Errorf("elasticache token: %w", err)
		}
		c, err := provider.Retrieve(ctx)
		if err != nil {
			return "", "", fmt.Errorf("elasticache token: credentials: %w", err)
		}
		signed, _, err := signer.PresignHTTP(ctx, c, req, hex.EncodeToString(nothing[:]), "elasticache", id.Region, now().UTC())
		if err != nil {
			return "", "", fmt.Errorf("elasticache token: %w", err)
		}
		return id.User, strings.TrimPrefix(signed, "http://"), nil
	}
}
