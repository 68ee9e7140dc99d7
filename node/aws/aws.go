// Package aws connects a node to what it uses of AWS: IAM for Redis, the table of the keys that verify tokens, Auto Scaling and CloudWatch.
//
// Region, credentials and endpoints come from where the SDK looks for them; on an instance that is its metadata service. Nothing is
// connected to before it is used.
package aws

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	livetail "tideline/node/stream/aws"
	busaws "tideline/shared/bus/aws"
	"tideline/shared/token"
	keytable "tideline/shared/token/dynamo"
)

// Times of one call.
const (
	dialTimeout   = 2 * time.Second
	headerTimeout = 3 * time.Second
	tries         = 3
	backoffMost   = 2 * time.Second
)

// Services is safe for concurrent use.
type Services struct{ config aws.Config }

// Open reads the SDK's configuration.
func Open(ctx context.Context) (*Services, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = headerTimeout }).
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout })
	c, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client), config.WithRetryer(func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = tries, backoffMost })
	}))
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	return &Services{c}, nil
}

// Redis names the user and the cache that a node signs in to.
type Redis struct {
	User, Cache string
	Serverless  bool
}

// RedisCredentials signs a new token at every dial: see shared/bus/aws.
func (s *Services) RedisCredentials(r Redis) func(ctx context.Context) (user, password string, err error) {
	return busaws.Credentials(busaws.Identity{User: r.User, Cache: r.Cache, Serverless: r.Serverless, Region: s.config.Region}, s.config.Credentials, nil)
}

// Keys is the public part of the key table.
func (s *Services) Keys(table string) token.PublicSource {
	return keytable.New(dynamodb.NewFromConfig(s.config), table)
}

// LogGroups is the source of the channels of CloudWatch log groups.
func (s *Services) LogGroups(log *slog.Logger) *livetail.Source { return livetail.New(s.config, log) }
