// Package dynamo keeps links and signed-out sessions in a DynamoDB table with the string key id and the TTL attribute ttl.
//
// DynamoDB removes what has ended by itself, hours late at times: every answer compares the time itself. Reads are consistent.
package dynamo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"tideline/functions/session"
)

// TTLAttribute is the attribute by which DynamoDB removes items, in seconds since 1970.
const TTLAttribute = "ttl"

// Store is a session.Store.
type Store struct {
	db    *dynamodb.Client
	table string
}

var _ session.Store = (*Store)(nil)

// New uses an existing table.
func New(db *dynamodb.Client, table string) *Store { return &Store{db, table} }

// CreateTable makes the table where no stack does: for DynamoDB Local and tests. It waits until the table can be used, at most 30 s.
func CreateTable(ctx context.Context, db *dynamodb.Client, table string) error {
	_, err := db.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: &table, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}}})
	if err != nil {
		return fmt.Errorf("create table %s: %w", table, err)
	}
	if err := dynamodb.NewTableExistsWaiter(db).Wait(ctx, &dynamodb.DescribeTableInput{TableName: &table}, 30*time.Second); err != nil {
		return fmt.Errorf("create table %s: %w", table, err)
	}
	_, err = db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &table, TimeToLiveSpecification: &types.TimeToLiveSpecification{
		AttributeName: aws.String(TTLAttribute), Enabled: aws.Bool(true)}})
	return err
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func seconds(t time.Time) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(t.Unix(), 10)}
}

func link(id string) types.AttributeValue    { return text("link#" + id) }
func signout(id string) types.AttributeValue { return text("out#" + id) }

// PutLink implements session.Store.
func (s *Store) PutLink(ctx context.Context, id string, l session.Link) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, Item: map[string]types.AttributeValue{"id": link(id),
		"data": text(string(b)), "expires": seconds(l.Expires), TTLAttribute: seconds(l.Expires.Add(session.LinkKept))}})
	if err != nil {
		return fmt.Errorf("put link: %w", err)
	}
	return nil
}

// TakeLink implements session.Store. The SDK repeats a call whose answer was lost; the mark of this call tells its own first try from
// somebody else's.
func (s *Store) TakeLink(ctx context.Context, id string, now time.Time) (session.Link, error) {
	mark := rand.Text()
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: &s.table, Key: map[string]types.AttributeValue{"id": link(id)},
		UpdateExpression:                    aws.String("SET taken = :mark"),
		ConditionExpression:                 aws.String("attribute_exists(id) AND expires > :now AND (attribute_not_exists(taken) OR taken = :mark)"),
		ExpressionAttributeValues:           map[string]types.AttributeValue{":mark": text(mark), ":now": seconds(now)},
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld})
	var refused *types.ConditionalCheckFailedException
	switch {
	case errors.As(err, &refused) && refused.Item["taken"] != nil:
		return session.Link{}, session.ErrLinkUsed
	case errors.As(err, &refused):
		return session.Link{}, session.ErrLinkExpired
	case err != nil:
		return session.Link{}, fmt.Errorf("take link: %w", err)
	}
	var l session.Link
	data, _ := out.Attributes["data"].(*types.AttributeValueMemberS)
	if data == nil {
		return session.Link{}, errors.New("take link: an item without data")
	}
	if err := json.Unmarshal([]byte(data.Value), &l); err != nil {
		return session.Link{}, fmt.Errorf("take link: %w", err)
	}
	return l, nil
}

// Revoke implements session.Store.
func (s *Store) Revoke(ctx context.Context, id string, until time.Time) error {
	_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table,
		Item: map[string]types.AttributeValue{"id": signout(id), TTLAttribute: seconds(until)}})
	if err != nil {
		return fmt.Errorf("sign session out: %w", err)
	}
	return nil
}

// Revoked implements session.Store.
func (s *Store) Revoked(ctx context.Context, id string, now time.Time) (bool, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.table, Key: map[string]types.AttributeValue{"id": signout(id)},
		ConsistentRead: aws.Bool(true)})
	if err != nil {
		return false, fmt.Errorf("read session: %w", err)
	}
	n, _ := out.Item[TTLAttribute].(*types.AttributeValueMemberN)
	if n == nil {
		return false, nil
	}
	until, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		return false, fmt.Errorf("read session: %w", err)
	}
	return now.Before(time.Unix(until, 0)), nil
}
