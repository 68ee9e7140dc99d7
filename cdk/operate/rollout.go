package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"tideline/cdk/operate/aws"
	"tideline/cdk/settings"
	"tideline/shared/metric"
)

// The pager is quiet while CloudFormation updates the stack: deploying says so every deployingEvery, and the alarm forgets it after two minutes. No
// deployment keeps it quiet for longer than deployingLongest.
const (
	deployingEvery   = 30 * time.Second
	deployingLongest = time.Hour
)

// deploying says that the stack is being updated, as long as it is and until the context ends. It says nothing during a roll-back: then something is wrong, and
// whoever is hurt by it shall be heard. A question that is not answered is asked again; one that is not allowed ends it.
func deploying(ctx context.Context, a arguments, out io.Writer) error {
	account, stage, err := open(ctx, a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deployingLongest)
	defer cancel()
	return sayWhileUpdating(ctx, account, stage, deployingEvery, out)
}

func sayWhileUpdating(ctx context.Context, account *aws.Account, stage string, every time.Duration, out io.Writer) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	complained := false
	for {
		stack, err := account.Stack(ctx, "tideline-"+stage)
		if err == nil && stack.Status == "UPDATE_IN_PROGRESS" {
			err = account.Measure(ctx, metric.Namespace(stage), metric.CloudDeploying, 1)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, aws.ErrDenied):
			return fmt.Errorf("the pager is not quiet during this deployment: %w", err)
		case err != nil && !complained:
			complained = true
			fmt.Fprintf(out, "the pager may not be quiet: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// mark prints the value of the stack's parameter that marks deployments on the dashboard, with the one that is about to begin.
func mark(ctx context.Context, a arguments, out io.Writer) error {
	account, stage, err := open(ctx, a)
	if err != nil {
		return err
	}
	stack, err := account.Stack(ctx, "tideline-"+stage)
	if err != nil {
		return err
	}
	version, _ := a.context["version"].(string)
	if version == "" {
		version = describe(ctx)
	}
	fmt.Fprintln(out, settings.ParseMarks(stack.Parameters[settings.MarksParameter]).Add(time.Now(), version))
	return nil
}

// describe names the version by the repository's state, as the stack's tags do; a folder without one has none.
func describe(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
