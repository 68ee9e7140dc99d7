package dynamo

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"tideline/shared/todo"
	"tideline/shared/todo/table"
)

var (
	_ todo.Store     = (*Store)(nil)
	_ todo.TaskStore = (*Store)(nil)
)

// ReadTask implements todo.TaskStore.
func (s *Store) ReadTask(ctx context.Context, user, id string) (todo.TaskRecord, error) {
	item, err := s.get(ctx, user, table.TaskPrefix+id)
	if err != nil {
		return todo.TaskRecord{}, err
	}
	if item == nil {
		return todo.TaskRecord{}, todo.ErrNotFound
	}
	return table.DecodeTask(item)
}

// WriteTask implements todo.TaskStore. The item's insertion is what the stream's pipe sends to the queue.
func (s *Store) WriteTask(ctx context.Context, user string, w todo.TaskWrite) error {
	if len(w.Rows) > todo.TaskRows {
		return fmt.Errorf("task %s: %d rows in one step, at most %d", w.Next.ID, len(w.Rows), todo.TaskRows)
	}
	id := rand.Text()
	w.Next.User = user
	item, err := table.EncodeTask(w.Next, id)
	if err != nil {
		return err
	}
	put := s.put(item, w.Before)
	if len(w.Rows) == 0 {
		return s.putOne(ctx, put, id)
	}
	st := steps{items: []types.TransactWriteItem{{Put: put}}, failures: []error{todo.ErrConflict}, own: id}
	for _, row := range w.Rows {
		st.add(types.TransactWriteItem{Put: s.put(table.EncodeTodo(user, todo.Record{Todo: row}, id, true), 0)}, todo.ErrConflict)
	}
	st.add(s.count(user, len(w.Rows)), todo.ErrFull)
	return s.transact(ctx, st)
}

// ListTasks implements todo.TaskStore: ids are UUIDs of version 7, so their order is that of time.
func (s *Store) ListTasks(ctx context.Context, user string, limit int) ([]todo.TaskRecord, error) {
	in := &dynamodb.QueryInput{TableName: &s.name, ConsistentRead: aws.Bool(true), ScanIndexForward: aws.Bool(false), Limit: aws.Int32(int32(limit)),
		KeyConditionExpression:   aws.String("#pk = :pk AND begins_with(#sk, :task)"),
		ExpressionAttributeNames: map[string]string{"#pk": table.PartitionKey, "#sk": table.SortKey},
		ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: table.UserPrefix + user},
			":task": &types.AttributeValueMemberS{Value: table.TaskPrefix}}}
	var out []todo.TaskRecord
	for {
		page, err := s.db.Query(ctx, in)
		if err != nil {
			return nil, outward(ctx, "query tasks", err)
		}
		for _, item := range page.Items {
			t, err := table.DecodeTask(image(item))
			if err != nil {
				return nil, err
			}
			if out = append(out, t); len(out) == limit {
				return out, nil
			}
		}
		if page.LastEvaluatedKey == nil {
			return out, nil
		}
		in.ExclusiveStartKey = page.LastEvaluatedKey
	}
}
