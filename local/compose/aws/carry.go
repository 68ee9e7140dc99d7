package aws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"tideline/functions/lambdahttp"
	"tideline/functions/outbox"
	"tideline/functions/tasks"
	"tideline/shared/limit"
	"tideline/shared/todo/table"
)

const (
	pollEvery = 200 * time.Millisecond
	batch     = 100 // records of one call of the outbox
	retryMin  = 500 * time.Millisecond
	retryMax  = 15 * time.Second
	// tasksAtOnce are worked on together; the stream waits while there are more.
	tasksAtOnce = 4
	// callTimeout is the worker's own, and a little.
	callTimeout = limit.WorkerTimeout + 10*time.Second
)

// Carry reads the table's stream from its beginning and gives it to the outbox and to the worker, until ctx ends. After a restart everything that the
// stream still has is given again, as it may be in AWS; both functions know what they have done.
func Carry(ctx context.Context, tableName, outboxURL, workerURL string, log *slog.Logger) error {
	c, err := open(ctx)
	if err != nil {
		return err
	}
	k := carrier{db: dynamodb.NewFromConfig(c), streams: dynamodbstreams.NewFromConfig(c), table: tableName, outbox: outboxURL, worker: workerURL, log: log,
		at: map[string]*string{}, slots: make(chan struct{}, tasksAtOnce), http: &http.Client{Timeout: callTimeout}}
	defer k.working.Wait()
	for wait := retryMin; ctx.Err() == nil; {
		n, err := k.round(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			log.Warn("stream not carried", "error", err, "again_in", wait)
			sleep(ctx, wait/2+rand.N(wait))
			wait = min(2*wait, retryMax)
		default:
			wait = retryMin
			if n == 0 {
				sleep(ctx, pollEvery)
			}
		}
	}
	return nil
}

type carrier struct {
	db                    *dynamodb.Client
	streams               *dynamodbstreams.Client
	table, outbox, worker string
	log                   *slog.Logger
	http                  *http.Client

	arn     string
	at      map[string]*string // the iterators by shard; nil when the shard is closed and read
	slots   chan struct{}
	working sync.WaitGroup
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// round reads each shard once, hands over what there is, and answers how much that was.
func (k *carrier) round(ctx context.Context) (n int, err error) {
	if k.arn == "" {
		d, err := k.db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &k.table})
		if err != nil {
			return 0, fmt.Errorf("describe table %s: %w", k.table, err)
		}
		k.arn = aws.ToString(d.Table.LatestStreamArn)
	}
	d, err := k.streams.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{StreamArn: &k.arn})
	if err != nil {
		return 0, fmt.Errorf("describe stream: %w", err)
	}
	for _, shard := range d.StreamDescription.Shards {
		id := aws.ToString(shard.ShardId)
		at, known := k.at[id]
		if !known {
			first, err := k.streams.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{StreamArn: &k.arn, ShardId: &id, ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
			if err != nil {
				return n, fmt.Errorf("shard iterator: %w", err)
			}
			at = first.ShardIterator
			k.at[id] = at
		}
		if at == nil {
			continue
		}
		out, err := k.streams.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: at, Limit: aws.Int32(batch)})
		if err != nil {
			delete(k.at, id) // an iterator lives for minutes: begin again
			return n, fmt.Errorf("read stream: %w", err)
		}
		if err := k.hand(ctx, out.Records); err != nil {
			return n, err
		}
		k.at[id] = out.NextShardIterator // only now: what was not taken is read again
		n += len(out.Records)
	}
	return n, nil
}

// hand gives records to the outbox and new tasks to the worker.
func (k *carrier) hand(ctx context.Context, records []types.Record) error {
	if len(records) == 0 {
		return nil
	}
	e := outbox.StreamEvent{Records: make([]outbox.StreamRecord, len(records))}
	for i, r := range records {
		e.Records[i] = lambdaRecord(r)
	}
	var res outbox.StreamResponse
	if err := k.invoke(ctx, k.outbox, e, &res); err != nil {
		return err
	}
	if len(res.BatchItemFailures) > 0 {
		return fmt.Errorf("outbox: not published from record %s on", res.BatchItemFailures[0].ItemIdentifier)
	}
	for _, r := range e.Records {
		if r.EventName == string(types.OperationTypeInsert) && r.DynamoDB.NewImage.Text(table.Kind) == table.KindTask {
			if err := k.queue(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// queue waits for a free place and gives a task to the worker, again and again until it is done.
func (k *carrier) queue(ctx context.Context, r outbox.StreamRecord) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	k.working.Go(func() {
		defer func() { <-k.slots }()
		id := r.DynamoDB.SequenceNumber
		wait := retryMin
		for try := 1; try <= limit.WorkReceives && ctx.Err() == nil; try++ {
			var res tasks.SQSResponse
			err := k.invoke(ctx, k.worker, tasks.SQSEvent{Records: []tasks.SQSRecord{{MessageID: id, Body: string(body)}}}, &res)
			if err == nil && len(res.BatchItemFailures) == 0 {
				return
			}
			k.log.Warn("task comes again", "message", id, "try", try, "error", err)
			sleep(ctx, wait/2+rand.N(wait))
			wait = min(2*wait, retryMax)
		}
		if ctx.Err() == nil {
			k.log.Error("task given up", "message", id, "tries", limit.WorkReceives)
		}
	})
	return nil
}

// invoke calls a function on its private port, as Lambda's clients do.
func (k *carrier) invoke(ctx context.Context, url string, event, answer any) error {
	payload, err := json.Marshal(event)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+lambdahttp.InvokePath, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	res, err := k.http.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("invoke: %s", res.Status)
	case res.Header.Get("X-Amz-Function-Error") != "":
		return errors.New("invoke: the function failed")
	}
	return json.Unmarshal(data, answer)
}

// lambdaRecord has the shape in which Lambda hands a record over.
func lambdaRecord(r types.Record) outbox.StreamRecord {
	out := outbox.StreamRecord{EventName: string(r.EventName)}
	d := &out.DynamoDB
	d.SequenceNumber = aws.ToString(r.Dynamodb.SequenceNumber)
	d.Created = float64(aws.ToTime(r.Dynamodb.ApproximateCreationDateTime).UnixMilli()) / 1000
	d.Keys, d.NewImage, d.OldImage = image(r.Dynamodb.Keys), image(r.Dynamodb.NewImage), image(r.Dynamodb.OldImage)
	return out
}

func image(attributes map[string]types.AttributeValue) table.Image {
	if attributes == nil {
		return nil
	}
	out := table.Image{}
	for name, v := range attributes {
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			out[name] = table.Value{S: &v.Value}
		case *types.AttributeValueMemberN:
			out[name] = table.Value{N: &v.Value}
		case *types.AttributeValueMemberBOOL:
			out[name] = table.Value{BOOL: &v.Value}
		}
	}
	return out
}
