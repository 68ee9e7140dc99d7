package edge

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventstargets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awskms"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/aws-cdk-go/awscdk/v2/customresources"
	"github.com/aws/jsii-runtime-go"
)

// Partition keys of the key ring's table, as shared/token/dynamo writes them; a test holds that they are the same. (The stack doesn't
// import it, because it would bring AWS's SDK.)
const (
	publicPartition   = "public"
	privatePartitions = "private#" // and the ring: access tokens, session cookies
)

var rings = []string{"access", "session"}

// declareKeys: the table that holds signing keys, under a key of its own; the function that rotates them; the function that signs.
func (e *Edge) declareKeys() {
	key := awskms.NewKey(e, str("KeysKey"), &awskms.KeyProps{Description: str("Tideline's signing keys, stage " + e.props.Stage),
		EnableKeyRotation: yes, RemovalPolicy: e.Removal()})
	e.KeysTable = awsdynamodb.NewTable(e, str("KeysTable"), e.Table(&awsdynamodb.TableProps{PartitionKey: Text("pk"), SortKey: Text("sk"),
		TimeToLiveAttribute: str("ttl"), Encryption: awsdynamodb.TableEncryption_CUSTOMER_MANAGED, EncryptionKey: key}))
	env := map[string]*string{"KEYS_TABLE": e.KeysTable.TableName()}
	e.issuers = e.declareIssuer()
	if e.issuers != nil {
		env["OIDC_ISSUERS"] = e.issuers
	}
	e.Keys = e.Function("Keys", FunctionProps{Build: "keys", Environment: env,
		Description: "rotates the signing keys and fetches the issuers' public keys"})
	Allow(e.Keys.Lambda, []*string{e.KeysTable.TableArn()}, "dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem", "dynamodb:UpdateItem",
		"dynamodb:DeleteItem", "dynamodb:ConditionCheckItem")
	e.grantDecryption(e.Keys.Lambda, "kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey")
	rule := awsevents.NewRule(e, str("KeysSchedule"), &awsevents.RuleProps{Schedule: awsevents.Schedule_Rate(span(keysEvery)),
		Description: str("rotation of signing keys and fetching of issuers' keys")})
	rule.AddTarget(awseventstargets.NewLambdaFunction(e.Keys.Alias, &awseventstargets.LambdaFunctionProps{
		RetryAttempts: num(2), MaxEventAge: span(keysEvery)}))
	e.makeFirstKeys()
	e.declareSession()
}

// makeFirstKeys runs the function once when the stack is made. Otherwise sign-ins would answer 503 until the schedule's first turn. The deployment does not wait for its
// end and does not fail with it: an issuer that is away is no reason to roll everything back, and the schedule tries again.
func (e *Edge) makeFirstKeys() {
	customresources.NewAwsCustomResource(e, str("FirstKeys"), &customresources.AwsCustomResourceProps{ResourceType: str("Custom::FirstKeys"), InstallLatestAwsSdk: no, LogGroup: e.callLogs(),
		OnCreate: &customresources.AwsSdkCall{Service: str("Lambda"), Action: str("invoke"),
			Parameters:  map[string]any{"FunctionName": e.Keys.Alias.FunctionArn(), "InvocationType": "Event", "Payload": "{}"},
			OutputPaths: jsii.Strings("StatusCode"), PhysicalResourceId: customresources.PhysicalResourceId_Of(str("first-keys"))},
		Policy: customresources.AwsCustomResourcePolicy_FromStatements(&[]awsiam.PolicyStatement{awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
			Actions: jsii.Strings("lambda:InvokeFunction"), Resources: &[]*string{e.Keys.Alias.FunctionArn()}})})})
}

// callLogs is where the function that makes the deployment's own calls to AWS logs; all such calls share one function.
func (e *Edge) callLogs() awslogs.LogGroup {
	if e.calls == nil {
		e.calls = e.Logs(e, "DeploymentCallLogs")
	}
	return e.calls
}

// declareSession: the only function that reads private keys, and the table of one-time links and signed-out sessions.
func (e *Edge) declareSession() {
	sessions := awsdynamodb.NewTable(e, str("SessionTable"), e.Table(&awsdynamodb.TableProps{PartitionKey: Text("id"), TimeToLiveAttribute: str("ttl")}))
	env := map[string]*string{"GUESTS": str("on")}
	if e.issuers != nil {
		env = map[string]*string{"GUESTS": str("off"), "OIDC_ISSUERS": e.issuers}
	}
	env["SESSION_TABLE"] = sessions.TableName()
	e.Session = e.Function("Session", FunctionProps{Build: "session", VerifiesTokens: true, Environment: env,
		Description: "signs users in and makes their tokens"})
	for _, ring := range rings {
		e.grantKeys(e.Session.Lambda, privatePartitions+ring)
	}
	Allow(e.Session.Lambda, []*string{sessions.TableArn()}, "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")
	e.Route(e.Session, 10, "/api/session", "/api/session/*")
}

// verifierEnvironment tells a process where the public keys are.
func (e *Edge) verifierEnvironment() map[string]*string {
	return map[string]*string{"KEYS_TABLE": e.KeysTable.TableName()}
}

func (e *Edge) grantPublicKeys(to awsiam.IGrantable) { e.grantKeys(to, publicPartition) }

// grantKeys allows reading one partition of the key table and decrypting it, through DynamoDB only.
func (e *Edge) grantKeys(to awsiam.IGrantable, partition string) {
	to.GrantPrincipal().AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings("dynamodb:GetItem", "dynamodb:Query"), Resources: &[]*string{e.KeysTable.TableArn()},
		Conditions: &map[string]any{"ForAllValues:StringEquals": map[string]any{"dynamodb:LeadingKeys": []any{partition}},
			"Null": map[string]any{"dynamodb:LeadingKeys": "false"}}}))
	e.grantDecryption(to, "kms:Decrypt")
}

// grantDecryption allows the use of the table's key, by DynamoDB for the caller and in no other way.
func (e *Edge) grantDecryption(to awsiam.IGrantable, actions ...string) {
	to.GrantPrincipal().AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings(actions...), Resources: &[]*string{e.KeysTable.EncryptionKey().KeyArn()},
		Conditions: &map[string]any{"StringEquals": map[string]any{"kms:ViaService": "dynamodb." + *awscdk.Aws_REGION() + ".amazonaws.com"}}}))
}
