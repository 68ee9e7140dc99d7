// Package aws is the functions' one configuration of the AWS SDK.
package aws

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// Times of one call to AWS. A function has seconds, and a caller waits: a call that hangs is given up and repeated early.
const (
	// tryTimeout bounds one try, from the connection to the end of the answer's headers.
	tryTimeout  = 2 * time.Second
	dialTimeout = 1 * time.Second
	// Sandboxes are frozen for minutes and their connections die unnoticed: none that was idle for longer is used again.
	idleTimeout = 50 * time.Second
	tries       = 3
	maxBackoff  = 500 * time.Millisecond
)

// Config reads region, credentials and endpoints from the environment, as the SDK does everywhere.
func Config(ctx context.Context) (aws.Config, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout, t.IdleConnTimeout, t.MaxIdleConnsPerHost = tryTimeout, idleTimeout, 8
	}).WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout })
	c, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = tries, maxBackoff })
		}))
	if err != nil {
		return c, fmt.Errorf("AWS configuration: %w", err)
	}
	return c, nil
}
