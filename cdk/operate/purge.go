package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"tideline/cdk/operate/aws"
	"tideline/cdk/settings"
)

// purge deletes what a stack that is gone has left: everything of kinds that stacks retain that carries the stage's tags. It does nothing while
// the stack exists, and nothing unless the stage is said twice.
func purge(ctx context.Context, a arguments, out io.Writer) error {
	account, stage, err := open(ctx, a)
	if err != nil {
		return err
	}
	stack, err := account.Stack(ctx, "tideline-"+stage)
	if err != nil {
		return err
	}
	if stack.Status != "" && stack.Status != "DELETE_COMPLETE" {
		return fmt.Errorf("tideline-%s is still there (%s): purge is for what an earlier stack left; make destroy STAGE=%s comes first", stage, stack.Status, stage)
	}
	arns, err := account.Tagged(ctx, map[string]string{settings.TagApp: "tideline", settings.TagStage: stage})
	if err != nil {
		return err
	}
	slices.Sort(arns)
	if len(arns) == 0 {
		fmt.Fprintf(out, "nothing of stage %s is left in %s\n", stage, account.Region)
		return nil
	}
	if a.confirm != stage {
		fmt.Fprintf(out, "These would be deleted, with their data, for good:\n")
		for _, arn := range arns {
			fmt.Fprintln(out, "  "+arn)
		}
		return fmt.Errorf("nothing was deleted: to do it, make purge STAGE=%s CONFIRM=%s", stage, stage)
	}
	r := &report{out: out}
	for _, arn := range arns {
		switch err := account.Delete(ctx, arn); {
		case err == nil:
			r.ok("deleted", "%s", arn)
		case errors.Is(err, aws.ErrUnknownKind):
			r.unknown("left", "%s", arn)
		default:
			r.bad("not deleted", "%s: %v", arn, err)
		}
	}
	return r.err("purge")
}
