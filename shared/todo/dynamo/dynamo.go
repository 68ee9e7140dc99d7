// Package dynamo keeps todos and tasks in one DynamoDB table, laid out as package table says.
//
// A change of a live todo is one conditional write; what also changes the count of todos, or keeps an answer, is one transaction. Every
// item carries the id of the write that made it: a condition that fails because the SDK sent our own write twice is success.
package dynamo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"tideline/shared/todo"
	"tideline/shared/todo/table"
)

// Store implements todo.Store and todo.TaskStore. It is safe for concurrent use.
type Store struct {
	db   *dynamodb.Client
	name string
	now  func() time.Time
}

// New makes a store on the table of that name; nil now means time.Now. Nothing is asked of DynamoDB.
func New(db *dynamodb.Client, name string, now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{db: db, name: name, now: now}
}

// Read implements todo.Store.
func (s *Store) Read(ctx context.Context, user, id string) (todo.Record, error) {
	item, err := s.get(ctx, user, table.TodoPrefix+id)
	if err != nil || item == nil {
		return todo.Record{}, err
	}
	_, r, err := table.DecodeTodo(item)
	return r, err
}

// Recall implements todo.Store.
func (s *Store) Recall(ctx context.Context, user, key string) (todo.Answer, error) {
	item, err := s.get(ctx, user, table.AnswerPrefix+key)
	if err != nil {
		return todo.Answer{}, err
	}
	if item == nil {
		return todo.Answer{}, todo.ErrNotFound
	}
	a, err := table.DecodeAnswer(item)
	if err == nil && !a.Expires.After(s.now()) { // DynamoDB takes days to remove it
		return todo.Answer{}, todo.ErrNotFound
	}
	return a, err
}

// Write implements todo.Store.
func (s *Store) Write(ctx context.Context, user string, w todo.Write) error {
	id := rand.Text()
	put := s.put(table.EncodeTodo(user, w.Next, id, false), w.Before.Version)
	if w.Before.Live() && w.Next.Live() && w.Answer == nil {
		return s.putOne(ctx, put, id)
	}
	steps := steps{items: []types.TransactWriteItem{{Put: put}}, failures: []error{todo.ErrConflict}, own: id}
	if w.Answer != nil {
		item, err := table.EncodeAnswer(user, *w.Answer)
		if err != nil {
			return err
		}
		steps.add(types.TransactWriteItem{Put: &types.Put{
			TableName: &s.name, Item: attributes(item),
			ConditionExpression:       aws.String("attribute_not_exists(#sk) OR #exp <= :now"),
			ExpressionAttributeNames:  map[string]string{"#sk": table.SortKey, "#exp": table.Expires},
			ExpressionAttributeValues: map[string]types.AttributeValue{":now": integer(s.now().UnixMilli())},
		}}, todo.ErrKeyUsed)
	}
	switch {
	case !w.Before.Live() && w.Next.Live():
		steps.add(s.count(user, 1), todo.ErrFull)
	case w.Before.Live() && !w.Next.Live():
		steps.add(s.count(user, -1), todo.ErrConflict)
	}
	return s.transact(ctx, steps)
}

// put is a write of an item over the version before; 0: over nothing.
func (s *Store) put(item table.Image, before uint64) *types.Put {
	p := &types.Put{TableName: &s.name, Item: attributes(item), ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ConditionExpression: aws.String("attribute_not_exists(#sk)"), ExpressionAttributeNames: map[string]string{"#sk": table.SortKey}}
	if before > 0 {
		p.ConditionExpression, p.ExpressionAttributeNames = aws.String("#v = :v"), map[string]string{"#v": table.Version}
		p.ExpressionAttributeValues = map[string]types.AttributeValue{":v": &types.AttributeValueMemberN{Value: strconv.FormatUint(before, 10)}}
	}
	return p
}

func (s *Store) putOne(ctx context.Context, p *types.Put, own string) error {
	_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: p.TableName, Item: p.Item, ConditionExpression: p.ConditionExpression,
		ExpressionAttributeNames: p.ExpressionAttributeNames, ExpressionAttributeValues: p.ExpressionAttributeValues,
		ReturnValuesOnConditionCheckFailure: p.ReturnValuesOnConditionCheckFailure})
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		if image(failed.Item).Text(table.WriteID) == own {
			return nil
		}
		return todo.ErrConflict
	}
	return outward(ctx, "put item", err)
}

// count changes the number of live todos by n; upwards only within todo.PerUser.
func (s *Store) count(user string, n int) types.TransactWriteItem {
	u := &types.Update{TableName: &s.name, Key: attributes(table.Key(user, table.CountSort)),
		UpdateExpression:         aws.String("SET #kind = :kind ADD #n :n"),
		ExpressionAttributeNames: map[string]string{"#n": table.Count, "#kind": table.Kind},
		ExpressionAttributeValues: map[string]types.AttributeValue{":n": integer(int64(n)),
			":kind": &types.AttributeValueMemberS{Value: table.KindCount}}}
	if n > 0 {
		u.ConditionExpression = aws.String("attribute_not_exists(#n) OR #n <= :max")
		u.ExpressionAttributeValues[":max"] = integer(int64(todo.PerUser - n))
	}
	return types.TransactWriteItem{Update: u}
}

// List implements todo.Store.
func (s *Store) List(ctx context.Context, user string, q todo.Query) (todo.Page, error) {
	index, key, low, high, bound := table.OrderIndex, table.OrderKey, "0", "~", ""
	if q.After != nil {
		bound = q.After.OrderKey()
		high = bound
	}
	if q.Done != nil {
		index, key, low, high = table.StateIndex, table.StateKey, table.State(*q.Done, low), table.State(*q.Done, high)
		bound = table.State(*q.Done, bound)
	}
	in := &dynamodb.QueryInput{TableName: &s.name, IndexName: &index, ConsistentRead: aws.Bool(true), ScanIndexForward: aws.Bool(false),
		KeyConditionExpression:   aws.String("#pk = :pk AND #key BETWEEN :low AND :high"),
		ExpressionAttributeNames: map[string]string{"#pk": table.PartitionKey, "#key": key},
		ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: table.UserPrefix + user},
			":low": &types.AttributeValueMemberS{Value: low}, ":high": &types.AttributeValueMemberS{Value: high}}}
	var p todo.Page
	for {
		in.Limit = aws.Int32(int32(q.Limit - len(p.Items) + 2)) // the bound itself, and one that tells whether there is a next page
		out, err := s.db.Query(ctx, in)
		if err != nil {
			return todo.Page{}, outward(ctx, "query todos", err)
		}
		for _, item := range out.Items {
			i := image(item)
			if i.Text(key) == bound {
				continue
			}
			if len(p.Items) == q.Limit {
				last := todo.CursorOf(p.Items[q.Limit-1])
				p.Next = &last
				return p, nil
			}
			_, r, err := table.DecodeTodo(i)
			if err != nil {
				return todo.Page{}, err
			}
			p.Items = append(p.Items, r.Todo)
		}
		if out.LastEvaluatedKey == nil {
			return p, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

func (s *Store) get(ctx context.Context, user, sort string) (table.Image, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.name, Key: attributes(table.Key(user, sort)), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, outward(ctx, "get item", err)
	}
	if out.Item == nil {
		return nil, nil
	}
	return image(out.Item), nil
}

// steps of a transaction, each with the error that its failed condition means, in the order in which errors count: the last given is the
// least. Own is the write id of the transaction's items.
type steps struct {
	items    []types.TransactWriteItem
	failures []error
	own      string
}

func (s *steps) add(item types.TransactWriteItem, failure error) {
	s.items, s.failures = append(s.items, item), append(s.failures, failure)
}

// transactAttempts bounds how often a transaction that met another one on the same item is tried again.
const transactAttempts = 8

func (s *Store) transact(ctx context.Context, st steps) error {
	for n := 0; ; n++ {
		// One token per attempt: it covers the SDK's own resending (DynamoDB remembers it for ten minutes), and an attempt that
		// was cancelled is known not to have been applied.
		_, err := s.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: st.items, ClientRequestToken: aws.String(rand.Text())})
		var cancelled *types.TransactionCanceledException
		if !errors.As(err, &cancelled) {
			return outward(ctx, "write transaction", err)
		}
		failure, again := st.judge(cancelled.CancellationReasons)
		if failure == nil && !again { // our own write, applied by an earlier sending
			return nil
		}
		if failure != nil {
			return failure
		}
		if n == transactAttempts-1 {
			return fmt.Errorf("%w: transaction met others %d times", todo.ErrUnavailable, transactAttempts)
		}
		select {
		case <-time.After(mathrand.N(min(10*time.Millisecond<<n, 400*time.Millisecond))):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", todo.ErrUnavailable, ctx.Err())
		}
	}
}

// judge says which failed condition counts, or that the transaction may be tried again.
func (st steps) judge(reasons []types.CancellationReason) (failure error, again bool) {
	rank := func(err error) int {
		return slices.Index([]error{nil, todo.ErrFull, todo.ErrConflict, todo.ErrKeyUsed}, err)
	}
	for i, r := range reasons {
		switch code := aws.ToString(r.Code); code {
		case "None", "":
		case "ConditionalCheckFailed":
			if image(r.Item).Text(table.WriteID) == st.own {
				return nil, false
			}
			if rank(st.failures[i]) > rank(failure) {
				failure = st.failures[i]
			}
		case "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded":
			again = true
		default:
			failure = fmt.Errorf("transaction step %d: %s: %s", i, code, aws.ToString(r.Message))
			return failure, false
		}
	}
	return failure, again
}

// Client is a client for New, and for other stores in DynamoDB.
func Client(c aws.Config) *dynamodb.Client { return dynamodb.NewFromConfig(c) }
