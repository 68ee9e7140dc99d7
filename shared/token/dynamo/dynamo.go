// Package dynamo keeps signing keys and issuers' key sets in a DynamoDB table.
//
// The table has the string keys pk and sk. Who may read what follows from the partition: "public" for every verifier, "private#<ring>" for
// signers alone; "ring" has the version that changes are conditional on. A policy with dynamodb:LeadingKeys can tell them apart.
package dynamo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"tideline/shared/token"
)

// Partitions of the table, for policies.
const (
	PartitionPublic  = "public"
	PartitionPrivate = "private#" // and the ring
	partitionRing    = "ring"
)

// Prefixes of sort keys in the public partition.
const (
	keyPrefix    = "key#"
	issuerPrefix = "issuer#"
)

// Store is a token.Store.
type Store struct {
	db    *dynamodb.Client
	table string
}

var _ token.Store = (*Store)(nil)

// New uses an existing table.
func New(db *dynamodb.Client, table string) *Store { return &Store{db, table} }

// CreateTable makes the table where no stack does: for DynamoDB Local and tests. It waits until the table can be used, at most 30 s.
func CreateTable(ctx context.Context, db *dynamodb.Client, table string) error {
	_, err := db.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: &table, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("sk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String("sk"), KeyType: types.KeyTypeRange}}})
	if err != nil {
		return fmt.Errorf("create table %s: %w", table, err)
	}
	return dynamodb.NewTableExistsWaiter(db).Wait(ctx, &dynamodb.DescribeTableInput{TableName: &table}, 30*time.Second)
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func key(pk, sk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"pk": text(pk), "sk": text(sk)}
}

func item(pk, sk string, v any) (map[string]types.AttributeValue, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	m := key(pk, sk)
	m["data"] = text(string(b))
	return m, nil
}

// partition reads a partition, consistently, and calls each with every sort key and its data.
func (s *Store) partition(ctx context.Context, pk, prefix string, each func(sk string, data []byte) error) error {
	in := &dynamodb.QueryInput{TableName: &s.table, ConsistentRead: aws.Bool(true), KeyConditionExpression: aws.String("pk = :p"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":p": text(pk)}}
	if prefix != "" {
		in.KeyConditionExpression = aws.String("pk = :p AND begins_with(sk, :s)")
		in.ExpressionAttributeValues[":s"] = text(prefix)
	}
	for {
		out, err := s.db.Query(ctx, in)
		if err != nil {
			return fmt.Errorf("read %s: %w", pk, err)
		}
		for _, m := range out.Items {
			sk, _ := m["sk"].(*types.AttributeValueMemberS)
			data, _ := m["data"].(*types.AttributeValueMemberS)
			if sk == nil || data == nil {
				return fmt.Errorf("read %s: an item without data", pk)
			}
			if err := each(sk.Value, []byte(data.Value)); err != nil {
				return fmt.Errorf("read %s, %s: %w", pk, sk.Value, err)
			}
		}
		if in.ExclusiveStartKey = out.LastEvaluatedKey; in.ExclusiveStartKey == nil {
			return nil
		}
	}
}

// Published implements token.PublicSource.
func (s *Store) Published(ctx context.Context) (token.Published, error) {
	p := token.Published{Issuers: map[string]json.RawMessage{}}
	err := s.partition(ctx, PartitionPublic, "", func(sk string, data []byte) error {
		if strings.HasPrefix(sk, keyPrefix) {
			var k token.Key
			if err := json.Unmarshal(data, &k); err != nil {
				return err
			}
			p.Keys = append(p.Keys, k)
		}
		if strings.HasPrefix(sk, issuerPrefix) {
			var k token.IssuerKeys
			if err := json.Unmarshal(data, &k); err != nil {
				return err
			}
			p.Issuers[k.Issuer] = k.Set
		}
		return nil
	})
	return p, err
}

// PrivateKeys implements token.PrivateSource.
func (s *Store) PrivateKeys(ctx context.Context, ring string) ([]token.PrivateKey, error) {
	var out []token.PrivateKey
	err := s.partition(ctx, PartitionPrivate+ring, "", func(_ string, data []byte) error {
		var k token.PrivateKey
		if err := json.Unmarshal(data, &k); err != nil {
			return errors.New("unreadable private key") // never its text
		}
		out = append(out, k)
		return nil
	})
	return out, err
}

// ReadRing implements token.Store. The version is read first: a change in between makes the later ChangeRing fail, not succeed wrongly.
func (s *Store) ReadRing(ctx context.Context, ring string) (token.Ring, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.table, Key: key(partitionRing, ring), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return token.Ring{}, fmt.Errorf("read ring %s: %w", ring, err)
	}
	var r token.Ring
	if n, ok := out.Item["version"].(*types.AttributeValueMemberN); ok {
		if r.Version, err = strconv.ParseInt(n.Value, 10, 64); err != nil {
			return token.Ring{}, fmt.Errorf("read ring %s: %w", ring, err)
		}
	}
	err = s.partition(ctx, PartitionPublic, keyPrefix+ring+"#", func(_ string, data []byte) error {
		var k token.Key
		if err := json.Unmarshal(data, &k); err != nil {
			return err
		}
		r.Keys = append(r.Keys, k)
		return nil
	})
	return r, err
}

// ChangeRing implements token.Store with one transaction.
func (s *Store) ChangeRing(ctx context.Context, c token.Change) error {
	if n := len(c.Retire) + len(c.Remove); n > token.ChangeMax {
		return fmt.Errorf("change of %d keys, at most %d", n, token.ChangeMax)
	}
	writes, err := s.writes(ctx, c)
	if err != nil {
		return err
	}
	_, err = s.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: writes})
	var canceled *types.TransactionCanceledException
	if errors.As(err, &canceled) {
		for _, r := range canceled.CancellationReasons {
			if code := aws.ToString(r.Code); code == "ConditionalCheckFailed" || code == "TransactionConflict" {
				return token.ErrConflict
			}
		}
	}
	if err != nil {
		return fmt.Errorf("change ring %s: %w", c.Ring, err)
	}
	return nil
}

func (s *Store) writes(ctx context.Context, c token.Change) ([]types.TransactWriteItem, error) {
	number := func(n int64) types.AttributeValue {
		return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
	}
	head := &types.Update{TableName: &s.table, Key: key(partitionRing, c.Ring), UpdateExpression: aws.String("SET version = :new"),
		ConditionExpression:       aws.String("version = :old"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":new": number(c.Version + 1), ":old": number(c.Version)}}
	if c.Version == 0 {
		head.ConditionExpression = aws.String("attribute_not_exists(version)")
		delete(head.ExpressionAttributeValues, ":old")
	}
	writes := []types.TransactWriteItem{{Update: head}}
	put := func(pk, sk string, v any) error {
		m, err := item(pk, sk, v)
		writes = append(writes, types.TransactWriteItem{Put: &types.Put{TableName: &s.table, Item: m}})
		return err
	}
	if c.Add != nil {
		if err := errors.Join(put(PartitionPublic, keyPrefix+c.Ring+"#"+c.Add.ID, c.Add), put(PartitionPrivate+c.Ring, c.Add.ID, c.AddPrivate)); err != nil {
			return nil, err
		}
	}
	if len(c.Retire) > 0 {
		r, err := s.ReadRing(ctx, c.Ring)
		if err != nil {
			return nil, err
		}
		for _, k := range r.Keys {
			if at, ok := c.Retire[k.ID]; ok {
				k.Retire = at
				if err := put(PartitionPublic, keyPrefix+c.Ring+"#"+k.ID, k); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, id := range c.Remove {
		writes = append(writes, types.TransactWriteItem{Delete: &types.Delete{TableName: &s.table, Key: key(PartitionPublic, keyPrefix+c.Ring+"#"+id)}},
			types.TransactWriteItem{Delete: &types.Delete{TableName: &s.table, Key: key(PartitionPrivate+c.Ring, id)}})
	}
	return writes, nil
}

// ReadIssuers implements token.Store.
func (s *Store) ReadIssuers(ctx context.Context) ([]token.IssuerKeys, error) {
	var out []token.IssuerKeys
	err := s.partition(ctx, PartitionPublic, issuerPrefix, func(_ string, data []byte) error {
		var k token.IssuerKeys
		if err := json.Unmarshal(data, &k); err != nil {
			return err
		}
		out = append(out, k)
		return nil
	})
	return out, err
}

// PutIssuer implements token.Store.
func (s *Store) PutIssuer(ctx context.Context, k token.IssuerKeys) error {
	m, err := item(PartitionPublic, issuerPrefix+k.Issuer, k)
	if err != nil {
		return err
	}
	if _, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, Item: m}); err != nil {
		return fmt.Errorf("write keys of %s: %w", k.Issuer, err)
	}
	return nil
}

// RemoveIssuer implements token.Store.
func (s *Store) RemoveIssuer(ctx context.Context, issuer string) error {
	_, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &s.table, Key: key(PartitionPublic, issuerPrefix+issuer)})
	if err != nil {
		return fmt.Errorf("remove keys of %s: %w", issuer, err)
	}
	return nil
}
