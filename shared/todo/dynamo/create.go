package dynamo

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"tideline/shared/todo/table"
)

// CreateTable makes the table where no stack does: for DynamoDB Local and tests. It waits until the table can be used, at most 30 s.
func CreateTable(ctx context.Context, db *dynamodb.Client, name string) error {
	hash := func(attr string) types.KeySchemaElement {
		return types.KeySchemaElement{AttributeName: aws.String(attr), KeyType: types.KeyTypeHash}
	}
	rng := func(attr string) types.KeySchemaElement {
		return types.KeySchemaElement{AttributeName: aws.String(attr), KeyType: types.KeyTypeRange}
	}
	str := func(attr string) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: aws.String(attr), AttributeType: types.ScalarAttributeTypeS}
	}
	index := func(name, key string) types.LocalSecondaryIndex {
		return types.LocalSecondaryIndex{IndexName: &name, KeySchema: []types.KeySchemaElement{hash(table.PartitionKey), rng(key)},
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll}}
	}
	_, err := db.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions:  []types.AttributeDefinition{str(table.PartitionKey), str(table.SortKey), str(table.OrderKey), str(table.StateKey)},
		KeySchema:             []types.KeySchemaElement{hash(table.PartitionKey), rng(table.SortKey)},
		LocalSecondaryIndexes: []types.LocalSecondaryIndex{index(table.OrderIndex, table.OrderKey), index(table.StateIndex, table.StateKey)},
		StreamSpecification:   &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewAndOldImages},
	})
	if err != nil {
		return fmt.Errorf("create table %s: %w", name, err)
	}
	if err := dynamodb.NewTableExistsWaiter(db).Wait(ctx, &dynamodb.DescribeTableInput{TableName: &name}, 30*time.Second); err != nil {
		return fmt.Errorf("wait for table %s: %w", name, err)
	}
	_, err = db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &name,
		TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(table.TTL), Enabled: aws.Bool(true)}})
	if err != nil {
		return fmt.Errorf("time to live of table %s: %w", name, err)
	}
	return nil
}
