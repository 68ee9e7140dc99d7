package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"tideline/shared/todo/bolt"
	"tideline/shared/todo/table"
)

// SQSEvent is what Lambda hands over of a queue.
type SQSEvent struct {
	Records []SQSRecord `json:"Records"`
}

// SQSRecord is one message. Its body is the pipe's: the DynamoDB stream record of the task's insertion.
type SQSRecord struct {
	MessageID string `json:"messageId"`
	Body      string `json:"body"`
}

// SQSResponse names the messages that must come again.
type SQSResponse struct {
	BatchItemFailures []ItemFailure `json:"batchItemFailures"`
}

// ItemFailure names a message.
type ItemFailure struct {
	ItemIdentifier string `json:"itemIdentifier"`
}

// stopBefore is the time that is kept of a Lambda invocation to give a task back and to answer.
const stopBefore = 3 * time.Second

// HandleSQS does the tasks of a batch, all at the same time: batches are small. What is not done when the invocation's time is nearly up comes again.
func (w *Worker) HandleSQS(ctx context.Context, e SQSEvent) SQSResponse {
	if at, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, at.Add(-stopBefore))
		defer cancel()
	}
	errs := make([]error, len(e.Records))
	var wg sync.WaitGroup
	for i, r := range e.Records {
		wg.Go(func() { errs[i] = w.message(ctx, r.Body) })
	}
	wg.Wait()
	response := SQSResponse{BatchItemFailures: []ItemFailure{}}
	for i, err := range errs {
		if err == nil {
			continue
		}
		w.log.WarnContext(ctx, "task comes again", "message", e.Records[i].MessageID, "error", err)
		response.BatchItemFailures = append(response.BatchItemFailures, ItemFailure{e.Records[i].MessageID})
	}
	return response
}

func (w *Worker) message(ctx context.Context, body string) error {
	var r struct {
		DynamoDB struct {
			Keys table.Image `json:"Keys"`
		} `json:"dynamodb"`
	}
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		return fmt.Errorf("message is not a stream record: %w", err)
	}
	user, isUser := strings.CutPrefix(r.DynamoDB.Keys.Text(table.PartitionKey), table.UserPrefix)
	id, isTask := strings.CutPrefix(r.DynamoDB.Keys.Text(table.SortKey), table.TaskPrefix)
	if !isUser || !isTask {
		return errors.New("message is not about a task") // ends in the dead-letter queue, to be looked at
	}
	return w.Do(ctx, user, id)
}

// Handle takes any event that the worker function may get.
func (w *Worker) Handle(ctx context.Context, raw json.RawMessage) (any, error) {
	var e SQSEvent
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("tasks: decode event: %w", err)
	}
	if e.Records == nil {
		return nil, errors.New("tasks: the event is not a queue's")
	}
	return w.HandleSQS(ctx, e), nil
}

// Bounds of the local queue's loop.
const (
	localAtOnce = 2
	retryFirst  = 200 * time.Millisecond
	retryMax    = 5 * time.Second
)

// Local works on the bbolt store's queue: what stream, pipe and SQS are in AWS. The store's file admits one process, so its worker is alone.
type Local struct {
	Store  *bolt.Store
	Worker *Worker
	Log    *slog.Logger
}

// Run works until ctx ends, and then returns nil. One Run per store at a time.
func (l Local) Run(ctx context.Context) error {
	if l.Log == nil {
		l.Log = slog.New(slog.DiscardHandler)
	}
	var wait time.Duration
	for {
		again, err := l.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err != nil || again:
			if err != nil && wait < retryMax { // not a line every few seconds of a long outage
				l.Log.WarnContext(ctx, "tasks are tried again", "error", err)
			}
			wait = min(max(2*wait, retryFirst), retryMax)
		default:
			wait = 0
		}
		var retry <-chan time.Time
		if wait > 0 {
			retry = time.After(wait/2 + rand.N(wait/2))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.Store.Work():
		case <-retry:
		}
	}
}

// round does what is queued, a few at a time, and reports whether something is left. Each user's tasks may overtake each other, as they may in SQS.
func (l Local) round(ctx context.Context) (left bool, err error) {
	jobs, err := l.Store.Jobs(ctx, 100)
	if err != nil {
		return true, err
	}
	errs := make([]error, len(jobs))
	slots := make(chan struct{}, localAtOnce)
	var wg sync.WaitGroup
	for i, j := range jobs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if errs[i] = l.Worker.Do(ctx, j.User, j.Task); errs[i] == nil {
				errs[i] = l.Store.Done(ctx, j)
			}
		})
	}
	wg.Wait()
	return len(jobs) == 100, errors.Join(errs...)
}
