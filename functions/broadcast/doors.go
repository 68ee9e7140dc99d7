package broadcast

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
	"tideline/shared/channel"
	"tideline/shared/token"
)

// event is what tells the doors apart.
type event struct {
	// EventBridge
	DetailType *string         `json:"detail-type"`
	ID         string          `json:"id"`
	Detail     json.RawMessage `json:"detail"`
	// SNS
	Records []struct {
		EventSource string `json:"EventSource"`
		SNS         struct {
			MessageID string `json:"MessageId"`
			Message   string `json:"Message"`
		} `json:"Sns"`
	} `json:"Records"`
}

// Handle takes EventBridge and SNS events and direct invocations. The invocation's id, which is the same when Lambda itself tries again, is
// that of the context's request.
func (b *Broadcast) Handle(ctx context.Context, raw json.RawMessage) (any, error) {
	var e event
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	switch {
	case e.DetailType != nil:
		if *e.DetailType != DetailType {
			return nil, fmt.Errorf("%w: detail-type %.60q, not %s", ErrRequest, *e.DetailType, DetailType)
		}
		return nil, b.unanswered(ctx, e.ID, e.Detail)
	case e.Records != nil:
		var errs []error
		for _, r := range e.Records {
			if r.EventSource != "aws:sns" {
				return nil, fmt.Errorf("%w: a record of %.60q", ErrRequest, r.EventSource)
			}
			errs = append(errs, b.unanswered(ctx, r.SNS.MessageID, []byte(r.SNS.Message)))
		}
		return nil, errors.Join(errs...)
	}
	r, err := parse(raw)
	if err != nil {
		return nil, err
	}
	return b.Publish(ctx, api.RequestID(ctx), r), nil
}

// unanswered publishes for a door that hears no results. What can't be understood is logged and done with: it would be no better next time.
func (b *Broadcast) unanswered(ctx context.Context, source string, raw []byte) error {
	r, err := parse(raw)
	if err == nil && source == "" {
		err = fmt.Errorf("%w: the event has no id", ErrRequest)
	}
	if err != nil {
		b.log.ErrorContext(ctx, "broadcast refused", "source", source, "error", err)
		return nil
	}
	for i, res := range b.Publish(ctx, source, r).Results {
		if res.Error == nil {
			continue
		}
		if res.Error.Temporary {
			return fmt.Errorf("broadcast %s, publication %d: %s", source, i, res.Error.Message)
		}
		b.log.ErrorContext(ctx, "publication refused", "source", source, "publication", i, "code", res.Error.Code, "error", res.Error.Message)
	}
	return nil
}

// HTTPOptions of HTTP.
type HTTPOptions struct {
	// Authorized says that whoever stands before this handler has checked the caller: a function URL with IAM. Otherwise a bearer token of
	// an operator is asked for, which Verifier checks.
	Authorized bool
	Verifier   token.Verifier
}

type publishInput struct{ Body Request }

type publishOutput struct{ Body Response }

// HTTP is the door for POST / with a Request.
func (b *Broadcast) HTTP(o HTTPOptions) (http.Handler, error) {
	if !o.Authorized && o.Verifier == nil {
		return nil, errors.New("broadcast: HTTP without a verifier would be open to everybody")
	}
	a, err := api.New(api.Options{Verifier: o.Verifier, Log: b.log, Meter: b.meter, Now: b.now})
	if err != nil {
		return nil, err
	}
	op := huma.Operation{OperationID: "broadcast", Method: http.MethodPost, Path: "/", Summary: "Publish on channels", Errors: []int{400, 401, 403, 413, 415, 422, 503}}
	if !o.Authorized {
		op.Security = api.Bearer
	}
	api.Register(a, op, func(ctx context.Context, in *publishInput) (*publishOutput, error) {
		if !o.Authorized && !slices.Contains(api.Caller(ctx).Roles, channel.RoleOperator) {
			return nil, api.Problem(http.StatusForbidden, api.CodeForbidden, "Only operators may broadcast.")
		}
		return &publishOutput{b.Publish(ctx, api.RequestID(ctx), in.Body)}, nil
	})
	return a, nil
}
