package dynamo

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"tideline/shared/todo"
	"tideline/shared/todo/table"
)

func integer(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func attributes(i table.Image) map[string]types.AttributeValue {
	m := make(map[string]types.AttributeValue, len(i))
	for name, v := range i {
		switch {
		case v.S != nil:
			m[name] = &types.AttributeValueMemberS{Value: *v.S}
		case v.N != nil:
			m[name] = &types.AttributeValueMemberN{Value: *v.N}
		case v.BOOL != nil:
			m[name] = &types.AttributeValueMemberBOOL{Value: *v.BOOL}
		}
	}
	return m
}

// image leaves out attributes of other types: the layout has none.
func image(m map[string]types.AttributeValue) table.Image {
	i := make(table.Image, len(m))
	for name, v := range m {
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			i[name] = table.Value{S: &v.Value}
		case *types.AttributeValueMemberN:
			i[name] = table.Value{N: &v.Value}
		case *types.AttributeValueMemberBOOL:
			i[name] = table.Value{BOOL: &v.Value}
		}
	}
	return i
}

// throttled are the client faults that mean "later".
var throttled = map[string]bool{"ProvisionedThroughputExceededException": true, "ThrottlingException": true, "RequestLimitExceeded": true,
	"TransactionInProgressException": true, "TransactionConflictException": true, "LimitExceededException": true}

// outward wraps what is not the caller's or this code's mistake in todo.ErrUnavailable.
func outward(ctx context.Context, verb string, err error) error {
	if err == nil {
		return nil
	}
	var apiErr smithy.APIError
	if ctx.Err() == nil && errors.As(err, &apiErr) && apiErr.ErrorFault() == smithy.FaultClient && !throttled[apiErr.ErrorCode()] {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return fmt.Errorf("%s: %w: %w", verb, todo.ErrUnavailable, err)
}
