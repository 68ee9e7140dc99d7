package aws

import (
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	dto "github.com/prometheus/client_model/go"

	"tideline/shared/metric"
)

// valuesMost is how many different values CloudWatch takes in one datum. A histogram's buckets must be fewer.
const valuesMost = 150

// sums are the counters that are sent as what they grew by: the Prometheus metric, and the label that its series must have.
var sums = []struct{ cloud, name, label, value string }{
	{metric.CloudDeliveries, metric.MessagesSent, "", ""},
	{metric.CloudPublications, metric.Publications, "result", "published"},
	{metric.CloudErrors, metric.CommandErrors, "code", "100"},
	{metric.CloudDrops, metric.Dropped, "", ""},
	{metric.CloudGaps, metric.GapsAnnounced, "", ""},
	{metric.CloudFailedRecoveries, metric.Recoveries, "result", "failed"},
	{metric.CloudSlowConsumers, metric.SlowConsumers, "", ""},
	{metric.CloudResubscribes, metric.Resubscribes, "", ""},
	{metric.CloudCanaryMissed, metric.CanaryMissed, "", ""},
}

// gauges are sent as they are.
var gauges = []struct {
	cloud, name string
	unit        types.StandardUnit
}{
	{metric.CloudQueueBytes, metric.QueueBytes, types.StandardUnitBytes},
}

// figures turns what a node has counted since its start into what it counted since the last time. It is not safe for concurrent use.
type figures struct {
	before  map[string]float64 // by CloudWatch's name
	buckets map[float64]uint64 // of the latency: cumulative, by upper bound
}

func newFigures() *figures {
	return &figures{before: map[string]float64{}, buckets: map[float64]uint64{}}
}

// take answers the figures of one moment. Connections are sent where a group is given: what is scaled must be dimensioned by nothing else.
func (f *figures) take(families []*dto.MetricFamily, group string, at time.Time) []types.MetricDatum {
	byName := make(map[string]*dto.MetricFamily, len(families))
	for _, family := range families {
		byName[family.GetName()] = family
	}
	var data []types.MetricDatum
	add := func(name string, value float64, unit types.StandardUnit, dimensions ...types.Dimension) {
		if math.IsNaN(value) || math.IsInf(value, 0) {
			return // CloudWatch would refuse all that is sent with it
		}
		data = append(data, types.MetricDatum{MetricName: &name, Timestamp: &at, Value: &value, Unit: unit, Dimensions: dimensions})
	}
	if group != "" && byName[metric.Connections] != nil {
		add(metric.CloudConnections, total(byName[metric.Connections], "", ""), types.StandardUnitCount,
			types.Dimension{Name: aws.String(metric.DimensionGroup), Value: &group})
	}
	for _, s := range sums {
		now := total(byName[s.name], s.label, s.value) // a vector without a series has counted nothing
		add(s.cloud, max(0, now-f.before[s.cloud]), types.StandardUnitCount)
		f.before[s.cloud] = now
	}
	for _, g := range gauges {
		if family := byName[g.name]; family != nil {
			add(g.cloud, total(family, "", ""), g.unit)
		}
	}
	if values, counts := f.latency(byName[metric.MessageLatency]); len(values) > 0 {
		data = append(data, types.MetricDatum{MetricName: aws.String(metric.CloudLatency), Timestamp: &at, Unit: types.StandardUnitSeconds, Values: values, Counts: counts})
	}
	return data
}

// latency adds the namespaces up and answers how often each bucket was met since the last time. A bucket stands for its upper bound, so that a
// percentile is never shown too small, by a factor of two at most too large; what was above all bounds stands for twice the last.
func (f *figures) latency(family *dto.MetricFamily) (values, counts []float64) {
	var bounds []float64
	sum := map[float64]uint64{}
	samples := uint64(0)
	for _, series := range family.GetMetric() {
		h := series.GetHistogram()
		samples += h.GetSampleCount()
		for _, b := range h.GetBucket() {
			if math.IsInf(b.GetUpperBound(), 1) {
				continue
			}
			if _, known := sum[b.GetUpperBound()]; !known {
				bounds = append(bounds, b.GetUpperBound())
			}
			sum[b.GetUpperBound()] += b.GetCumulativeCount()
		}
	}
	if len(bounds) == 0 || len(bounds) >= valuesMost {
		return nil, nil
	}
	over := 2 * bounds[len(bounds)-1] // the bounds of one series come in order, and all series have the same
	bounds, sum[over] = append(bounds, over), samples
	below, belowBefore := uint64(0), uint64(0)
	for _, bound := range bounds {
		n, before := sum[bound], f.buckets[bound]
		if met := int64(n-below) - int64(before-belowBefore); met > 0 {
			values, counts = append(values, bound), append(counts, float64(met))
		}
		below, belowBefore = n, before
	}
	f.buckets = sum
	return values, counts
}

// total adds the series of a family that have the label, all of them if it is empty.
func total(family *dto.MetricFamily, label, value string) (sum float64) {
	for _, series := range family.GetMetric() {
		fits := label == ""
		for _, l := range series.GetLabel() {
			fits = fits || l.GetName() == label && l.GetValue() == value
		}
		if fits {
			sum += series.GetCounter().GetValue() + series.GetGauge().GetValue()
		}
	}
	return sum
}
