package aws

import (
	"context"
	"net/url"
	"strconv"
)

// Measure sends one value of a CloudWatch metric without dimensions.
func (a *Account) Measure(ctx context.Context, namespace, name string, value float64) error {
	var answer struct{}
	return a.Ask(ctx, "monitoring", "PutMetricData", url.Values{"Namespace": {namespace}, "MetricData.member.1.MetricName": {name},
		"MetricData.member.1.Value": {strconv.FormatFloat(value, 'g', -1, 64)}}, &answer)
}
