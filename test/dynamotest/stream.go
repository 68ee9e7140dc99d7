package dynamotest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
)

// Stream reads a table's stream from its beginning, as Lambda's event source does with TRIM_HORIZON. One goroutine may use it.
type Stream struct {
	client    *dynamodbstreams.Client
	arn       string
	iterators map[string]*string // by shard; nil when the shard is closed and read
}

// Stream opens the stream of a table.
func (s *Server) Stream(ctx context.Context, table string) (*Stream, error) {
	d, err := s.Client().DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &table})
	if err != nil {
		return nil, fmt.Errorf("describe table %s: %w", table, err)
	}
	return &Stream{client: s.Streams(), arn: aws.ToString(d.Table.LatestStreamArn), iterators: map[string]*string{}}, nil
}

// Next answers the next records, at most limit, as the JSON of Lambda's event, and how many there are; none gives 0 at once.
func (s *Stream) Next(ctx context.Context, limit int) (event []byte, n int, err error) {
	d, err := s.client.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{StreamArn: &s.arn})
	if err != nil {
		return nil, 0, fmt.Errorf("describe stream: %w", err)
	}
	records := []map[string]any{}
	for _, shard := range d.StreamDescription.Shards {
		id := aws.ToString(shard.ShardId)
		at, known := s.iterators[id]
		if !known {
			out, err := s.client.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{StreamArn: &s.arn, ShardId: &id,
				ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
			if err != nil {
				return nil, 0, fmt.Errorf("shard iterator: %w", err)
			}
			at = out.ShardIterator
		}
		if at != nil && len(records) < limit {
			out, err := s.client.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: at, Limit: aws.Int32(int32(limit - len(records)))})
			if err != nil {
				return nil, 0, fmt.Errorf("read stream: %w", err)
			}
			at = out.NextShardIterator
			for _, r := range out.Records {
				records = append(records, s.lambdaRecord(r))
			}
		}
		s.iterators[id] = at
	}
	event, err = json.Marshal(map[string]any{"Records": records})
	return event, len(records), err
}

// lambdaRecord has the shape in which Lambda hands a record over.
func (s *Stream) lambdaRecord(r types.Record) map[string]any {
	change := map[string]any{"SequenceNumber": aws.ToString(r.Dynamodb.SequenceNumber), "StreamViewType": "NEW_AND_OLD_IMAGES",
		"ApproximateCreationDateTime": float64(aws.ToTime(r.Dynamodb.ApproximateCreationDateTime).UnixNano()) / float64(time.Second)}
	for name, image := range map[string]map[string]types.AttributeValue{"Keys": r.Dynamodb.Keys, "NewImage": r.Dynamodb.NewImage, "OldImage": r.Dynamodb.OldImage} {
		if image != nil {
			change[name] = lambdaImage(image)
		}
	}
	return map[string]any{"eventID": aws.ToString(r.EventID), "eventName": string(r.EventName), "eventVersion": "1.1", "eventSource": "aws:dynamodb",
		"awsRegion": "us-east-1", "eventSourceARN": s.arn, "dynamodb": change}
}

func lambdaImage(image map[string]types.AttributeValue) map[string]any {
	out := map[string]any{}
	for name, v := range image {
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			out[name] = map[string]any{"S": v.Value}
		case *types.AttributeValueMemberN:
			out[name] = map[string]any{"N": v.Value}
		case *types.AttributeValueMemberBOOL:
			out[name] = map[string]any{"BOOL": v.Value}
		case *types.AttributeValueMemberNULL:
			out[name] = map[string]any{"NULL": v.Value}
		default:
			out[name] = map[string]any{"B": fmt.Sprintf("%T", v)} // not used by any table of ours
		}
	}
	return out
}
