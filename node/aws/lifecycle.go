package aws

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/smithy-go"
)

// lifecycleTimeout bounds one attempt to complete a lifecycle action.
const lifecycleTimeout = 5 * time.Second

// Lifecycle completes the action of one lifecycle hook.
type Lifecycle struct {
	client *autoscaling.Client
	hook   string
}

// Lifecycle is for the hook of that name.
func (s *Services) Lifecycle(hook string) *Lifecycle {
	// Whoever calls waits between attempts by itself: a refusal is the usual answer until the instance is in Terminating:Wait.
	return &Lifecycle{hook: hook, client: autoscaling.NewFromConfig(s.config, func(o *autoscaling.Options) { o.Retryer = aws.NopRetryer{} })}
}

// Complete says CONTINUE for an instance of a group, once, in 5 s at most. The error of a refusal is AWS's code and message, without what differs
// between two calls.
func (l *Lifecycle) Complete(ctx context.Context, group, instance string) error {
	ctx, cancel := context.WithTimeout(ctx, lifecycleTimeout)
	defer cancel()
	_, err := l.client.CompleteLifecycleAction(ctx, &autoscaling.CompleteLifecycleActionInput{AutoScalingGroupName: &group, InstanceId: &instance,
		LifecycleHookName: &l.hook, LifecycleActionResult: aws.String("CONTINUE")})
	return explain("complete the lifecycle action "+l.hook, err)
}

// explain leaves AWS's code and message of an error: the id of a request would make each a new one.
func explain(verb string, err error) error {
	if api := smithy.APIError(nil); errors.As(err, &api) {
		return fmt.Errorf("%s: %s: %s", verb, api.ErrorCode(), api.ErrorMessage())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}
