package edge

import (
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
)

// connectOrigins are what Connect was told, as a value that is known only when the application has declared everything.
type connectOrigins struct{ origins []string }

// Produce implements awscdk.IStableStringProducer.
func (c *connectOrigins) Produce() *string { return str(strings.Join(c.origins, ",")) }

// Connect lets the page's scripts send requests to an origin beside their own, such as BucketOrigin. A value of CONNECT_ORIGINS in
// Nodes.Environment takes the place of all that is said here.
func (e *Edge) Connect(origin *string) { e.connect.origins = append(e.connect.origins, *origin) }

func (e *Edge) connectSetting() *string {
	return awscdk.Lazy_String(&e.connect, nil)
}

// BucketOrigin is where presigned links of a bucket lead: its own host name in its region, spelt as the SDK
// spells it in every region (a test in functions/tasks/s3files holds it).
func BucketOrigin(bucket awss3.IBucket) *string {
	return str("https://" + *bucket.BucketName() + ".s3." + *awscdk.Aws_REGION() + "." + *awscdk.Aws_URL_SUFFIX())
}
