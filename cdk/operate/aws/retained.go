package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// keyWaitDays is how long a KMS key can still be saved after its deletion was asked for: the shortest that KMS takes.
const keyWaitDays = 7

// ErrUnknownKind says that Delete does not know a kind of resource. Test with errors.Is.
var ErrUnknownKind = errors.New("not a kind that a stack retains")

// Tagged lists the ARNs of everything that carries all the tags.
func (a *Account) Tagged(ctx context.Context, tags map[string]string) ([]string, error) {
	var filters []any
	for key, value := range tags {
		filters = append(filters, map[string]any{"Key": key, "Values": []string{value}})
	}
	var arns []string
	for token := ""; ; {
		var answer struct {
			PaginationToken        string
			ResourceTagMappingList []struct{ ResourceARN string }
		}
		in := map[string]any{"TagFilters": filters}
		if token != "" {
			in["PaginationToken"] = token
		}
		if err := a.Call(ctx, "tagging", "ResourceGroupsTaggingAPI_20170126.GetResources", in, &answer); err != nil {
			return nil, err
		}
		for _, r := range answer.ResourceTagMappingList {
			arns = append(arns, r.ResourceARN)
		}
		if token = answer.PaginationToken; token == "" {
			return arns, nil
		}
	}
}

// Delete deletes one resource of a kind that stacks retain, with its data, taking its deletion protection off. KMS keys go after keyWaitDays.
func (a *Account) Delete(ctx context.Context, arn string) error {
	part := strings.SplitN(arn, ":", 6)
	if len(part) < 6 {
		return fmt.Errorf("%s: %w", arn, ErrUnknownKind)
	}
	service, name := part[2], part[5]
	switch {
	case service == "dynamodb" && strings.HasPrefix(name, "table/"):
		table := strings.TrimPrefix(name, "table/")
		if err := a.Call(ctx, "dynamodb", "DynamoDB_20120810.UpdateTable", map[string]any{"TableName": table, "DeletionProtectionEnabled": false}, nil); err != nil {
			return err
		}
		return a.Call(ctx, "dynamodb", "DynamoDB_20120810.DeleteTable", map[string]any{"TableName": table}, nil)
	case service == "s3":
		return a.deleteBucket(ctx, name)
	case service == "logs":
		return a.Call(ctx, "logs", "Logs_20140328.DeleteLogGroup", map[string]any{"logGroupName": strings.TrimSuffix(strings.TrimPrefix(name, "log-group:"), ":*")}, nil)
	case service == "sqs":
		return a.Call(ctx, "sqs", "AmazonSQS.DeleteQueue", map[string]any{"QueueUrl": "https://sqs." + part[3] + ".amazonaws.com/" + part[4] + "/" + name}, nil)
	case service == "kms" && strings.HasPrefix(name, "key/"):
		return a.Call(ctx, "kms", "TrentService.ScheduleKeyDeletion", map[string]any{"KeyId": arn, "PendingWindowInDays": keyWaitDays}, nil)
	case service == "cognito-idp":
		pool := strings.TrimPrefix(name, "userpool/")
		if err := a.Call(ctx, "cognito-idp", "AWSCognitoIdentityProviderService.UpdateUserPool", map[string]any{"UserPoolId": pool, "DeletionProtection": "INACTIVE"}, nil); err != nil {
			return err
		}
		return a.Call(ctx, "cognito-idp", "AWSCognitoIdentityProviderService.DeleteUserPool", map[string]any{"UserPoolId": pool}, nil)
	}
	return fmt.Errorf("%s: %w", arn, ErrUnknownKind)
}

// deleteBucket empties it, a thousand objects at a time, and deletes it.
func (a *Account) deleteBucket(ctx context.Context, name string) error {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("AWS configuration: %w", err)
	}
	client := s3.NewFromConfig(c, func(o *s3.Options) { o.UsePathStyle = a.endpoint != "" })
	for pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list %s: %w", name, err)
		}
		if len(page.Contents) == 0 {
			continue
		}
		var ids []types.ObjectIdentifier
		for _, o := range page.Contents {
			ids = append(ids, types.ObjectIdentifier{Key: o.Key})
		}
		out, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &name, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
		if err != nil {
			return fmt.Errorf("empty %s: %w", name, err)
		}
		if len(out.Errors) > 0 {
			return fmt.Errorf("empty %s: %s: %s", name, aws.ToString(out.Errors[0].Key), aws.ToString(out.Errors[0].Message))
		}
	}
	if _, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &name}); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}
