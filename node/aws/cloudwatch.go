package aws

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/smithy-go"
	"github.com/prometheus/client_golang/prometheus"

	"tideline/shared/limit"
)

const (
	// sendTimeout bounds one sending, its retries included: sendTimeout < limit.MetricsInterval.
	sendTimeout = 20 * time.Second
	// firstWithin is how soon after its start a node sends for the first time.
	firstWithin = 5 * time.Second
	// lastTimeout bounds the last one, which the end of the node waits for.
	lastTimeout = 2 * time.Second
	// keptMost is how many intervals' figures wait for an endpoint that doesn't answer, the latest; older ones are given up.
	// All of them go in one request: keptMost times a dozen stays under CloudWatch's 1,000.
	keptMost = 10
)

// Figures says what a Publisher sends.
type Figures struct {
	Namespace string
	Gatherer  prometheus.Gatherer
	// Group answers the name of the Auto Scaling group that Connections count for, or "": then they are not sent. It is asked before each
	// sending, bounds its own time, and answers "" while the node drains.
	Group func(context.Context) string
	Log   *slog.Logger
	// Interval is limit.MetricsInterval when zero.
	Interval time.Duration
}

// Publisher sends a node's figures to CloudWatch. Run may be called once.
type Publisher struct {
	Figures
	client  *cloudwatch.Client
	figures *figures
	waiting [][]types.MetricDatum // of the intervals that were not sent, oldest first
	failing bool
}

// Publisher is for one node's figures.
func (s *Services) Publisher(f Figures) *Publisher {
	if f.Interval == 0 {
		f.Interval = limit.MetricsInterval
	}
	return &Publisher{Figures: f, client: cloudwatch.NewFromConfig(s.config), figures: newFigures()}
}

// Run sends until ctx ends, and then once more what was counted since. An endpoint that is away, slow or refuses costs the figures and nothing else:
// they wait for ten intervals.
func (p *Publisher) Run(ctx context.Context) {
	// The first figures come soon: a node that is new and empty lowers the group's mean. A random phase keeps nodes that start together apart; a
	// steady beat gives each one value a minute.
	phase := time.NewTimer(rand.N(min(firstWithin, p.Interval)))
	defer phase.Stop()
	select {
	case <-phase.C:
	case <-ctx.Done():
		p.send(ctx, lastTimeout)
		return
	}
	beat := time.NewTicker(p.Interval)
	defer beat.Stop()
	for {
		p.send(ctx, min(sendTimeout, p.Interval))
		select {
		case <-beat.C:
		case <-ctx.Done():
			if !p.failing { // the endpoint is there
				p.send(ctx, lastTimeout)
			}
			return
		}
	}
}

// send takes the figures of now and sends them with those that wait. A request whose answer was lost is counted twice; CloudWatch knows no
// idempotent one: so the end of ctx leaves what is under way lastTimeout to end well.
func (p *Publisher) send(ended context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ended), limit)
	defer cancel()
	defer context.AfterFunc(ended, func() {
		select {
		case <-ctx.Done():
		case <-time.After(lastTimeout):
			cancel()
		}
	})()
	group := p.Group(ctx)
	families, err := p.Gatherer.Gather()
	if err != nil {
		p.Log.Warn("some figures can't be gathered", "error", err) // the others are
	}
	p.waiting = append(p.waiting, p.figures.take(families, group, time.Now()))
	if gone := len(p.waiting) - keptMost; gone > 0 {
		p.waiting = p.waiting[gone:]
	}
	var data []types.MetricDatum
	for _, w := range p.waiting {
		data = append(data, w...)
	}
	if len(data) == 0 {
		return
	}
	_, err = p.client.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: &p.Namespace, MetricData: data})
	switch {
	case err != nil && !p.failing:
		p.Log.Warn("figures not sent to CloudWatch; the latest are kept", "error", explain("put metric data", err), "intervals", keptMost)
	case err == nil && p.failing:
		p.Log.Info("figures are sent to CloudWatch again")
	}
	if p.failing = err != nil; !p.failing || refused(err) {
		p.waiting = nil
	}
}

// refused tells whether CloudWatch has read the figures and won't take them: kept, they would take those to come with them.
func refused(err error) bool {
	api := smithy.APIError(nil)
	return errors.As(err, &api) && (strings.HasPrefix(api.ErrorCode(), "InvalidParameter") || api.ErrorCode() == "MissingRequiredParameterException" ||
		api.ErrorCode() == "ValidationError")
}
