package lambdahttp

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"tideline/functions/api"
	"tideline/shared/trace"
)

// AnswerMargin is what a handler's deadline lies before the invocation's: the time to answer that it was too late.
const AnswerMargin = 250 * time.Millisecond

// Function is one Lambda function. Its Invoke implements lambda.Handler and is safe for concurrent use if its handlers are.
type Function struct {
	// HTTP serves load balancer and function URL events; nil: such an event is an error.
	HTTP http.Handler
	// Event serves every other event with its raw payload and answers a value that is sent as JSON; nil: such an event is an error.
	Event func(ctx context.Context, payload json.RawMessage) (any, error)
	// Done is called at the end of each invocation, before Lambda may freeze the sandbox: for measurements. May be nil.
	Done func() error
	Log  *slog.Logger
}

// Invoke serves one event.
func (f *Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	ctx = named(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-AnswerMargin))
		defer cancel()
	}
	defer func() {
		if f.Done == nil {
			return
		}
		if err := f.Done(); err != nil {
			f.Log.ErrorContext(ctx, "measurements not written", "error", err)
		}
	}()
	e, s := parseEvent(payload)
	if s != notHTTP && f.HTTP != nil {
		return f.serve(ctx, &e, s), nil
	}
	if s != notHTTP || f.Event == nil {
		return nil, fmt.Errorf("event of a kind that this function does not serve, %d bytes", len(payload))
	}
	out, err := f.Event(ctx, payload)
	if err != nil {
		// Lambda only keeps the error's text for the caller; the log is where it is looked for.
		f.Log.ErrorContext(ctx, "event failed", "error", err)
		return nil, err
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return b, nil
}

// serve runs the HTTP handler; every outcome is a response that the source understands.
func (f *Function) serve(ctx context.Context, e *event, s source) []byte {
	w := newResponse()
	r, err := e.request(ctx, s)
	switch {
	case err != nil:
		f.Log.InfoContext(ctx, "request refused", "error", err)
		plain, _ := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil) // a constant: can't fail
		api.WriteProblem(w, plain, http.StatusBadRequest, api.CodeInvalidRequest, err.Error())
	case healthCheck(r, s):
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte("ok\n"))
	default:
		f.HTTP.ServeHTTP(w, r)
		if w.status == 0 && ctx.Err() != nil {
			api.WriteProblem(w, r, http.StatusGatewayTimeout, api.CodeTimeout, "")
		}
	}
	payload, ok := w.encode(s)
	if ok {
		return payload
	}
	f.Log.ErrorContext(ctx, "response too large", "path", r.URL.Path, "bytes", w.body.Len())
	w = newResponse()
	api.WriteProblem(w, r, http.StatusInternalServerError, api.CodeResponseTooLarge, "The answer has more than 1 MB. Ask for less at once.")
	payload, _ = w.encode(s)
	return payload
}

// named puts the invocation's request and trace ids where logs find them.
func named(ctx context.Context) context.Context {
	lc, ok := lambdacontext.FromContext(ctx)
	if !ok {
		return ctx
	}
	given, _ := ctx.Value("x-amzn-trace-id").(string) // the key that aws-lambda-go uses
	return api.WithRequestID(trace.FromAmazon(ctx, given), lc.AwsRequestID)
}
