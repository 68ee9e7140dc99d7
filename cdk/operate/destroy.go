package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"tideline/cdk/operate/aws"
)

// poll is the time between two looks at a stack that goes; functions' network interfaces alone may take 20 minutes.
const poll = 10 * time.Second

// destroy deletes a stack after it has said what that means and the stage was said twice. It goes by the deployed template alone: what
// settings or builds are at hand does not matter.
func destroy(ctx context.Context, a arguments, out io.Writer) error {
	if err := plan(ctx, a, out); err != nil {
		return err
	}
	account, stage, err := open(ctx, a)
	if err != nil {
		return err
	}
	if a.confirm != stage {
		return fmt.Errorf("nothing was destroyed: to do it, make destroy STAGE=%s CONFIRM=%s", stage, stage)
	}
	name := "tideline-" + stage
	if err := unlock(ctx, account, name); err != nil {
		return err
	}
	if err := account.DeleteStack(ctx, name); err != nil {
		return err
	}
	last := ""
	for {
		stack, err := account.Stack(ctx, name)
		switch {
		case err != nil:
			return err
		case stack.Status == "" || stack.Status == "DELETE_COMPLETE":
			fmt.Fprintf(out, "%s is gone\n", name)
			return nil
		case strings.HasSuffix(stack.Status, "_FAILED"):
			return fmt.Errorf("%s is in %s: see its events, then run this again", name, stack.Status)
		case stack.Status != last:
			fmt.Fprintf(out, "%s is in %s\n", name, stack.Status)
			last = stack.Status
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still in %s: %w", name, last, ctx.Err())
		case <-time.After(poll):
		}
	}
}

// unlock takes the protections off that would make the deletion fail half way: the stack's and the load balancer's. Tables and user pools that
// are protected are retained.
func unlock(ctx context.Context, account *aws.Account, stack string) error {
	resources, err := account.Template(ctx, stack)
	if err != nil {
		return err
	}
	names, err := account.Names(ctx, stack)
	if err != nil {
		return err
	}
	errs := []error{account.TakeTerminationProtectionOff(ctx, stack)}
	for id, r := range resources {
		if r.Type == "AWS::ElasticLoadBalancingV2::LoadBalancer" && names[id] != "" {
			errs = append(errs, account.TakeBalancerProtectionOff(ctx, names[id]))
		}
	}
	return errors.Join(errs...)
}
