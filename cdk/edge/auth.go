package edge

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscognito"
	"github.com/aws/jsii-runtime-go"
)

// Auth says who may sign in. The zero value lets guests in.
type Auth struct {
	// Issuer, when set, signs users in instead of guests: an OIDC issuer's address, the audience that its tokens must carry, and the
	// claim that lists roles.
	Issuer    string
	Audience  string
	RoleClaim string
	// Name begins the names of the issuer's users here, "name:sub". It can't change later.
	Name string
	// Operator is the role that makes an operator.
	Operator string
	// Cognito makes a user pool and uses it as the issuer.
	Cognito bool
}

// issuer is one entry of OIDC_ISSUERS, as shared/token reads it.
type issuer struct {
	Name       string `json:"name"`
	Issuer     string `json:"issuer"`
	Audience   string `json:"audience"`
	RolesClaim string `json:"rolesClaim"`
	Operator   string `json:"operator"`
}

// declareIssuer answers the setting OIDC_ISSUERS; nil means guests.
func (e *Edge) declareIssuer() *string {
	a := e.props.Auth
	from := issuer{cmp.Or(a.Name, "oidc"), a.Issuer, a.Audience, cmp.Or(a.RoleClaim, "roles"), cmp.Or(a.Operator, operatorGroup)}
	switch {
	case a.Cognito:
		url, audience := e.userPool()
		from = issuer{"cognito", *url, *audience, "cognito:groups", operatorGroup}
	case a.Issuer == "":
		return nil
	}
	list, err := json.Marshal([]issuer{from})
	if err != nil {
		panic(err) // of strings: unreachable
	}
	return str(string(list))
}

// operatorGroup is the group of the user pool whose members are operators, and the default role of other issuers.
const operatorGroup = "operator"

// userPool makes a Cognito pool with its hosted login page, and answers the issuer and the audience of its tokens.
func (e *Edge) userPool() (issuer, audience *string) {
	pool := awscognito.NewUserPool(e, str("Users"), &awscognito.UserPoolProps{
		SelfSignUpEnabled: no, SignInAliases: &awscognito.SignInAliases{Email: yes},
		RemovalPolicy: e.Removal(), DeletionProtection: jsii.Bool(e.props.Protect), FeaturePlan: awscognito.FeaturePlan_ESSENTIALS,
		Mfa: awscognito.Mfa_OPTIONAL, MfaSecondFactor: &awscognito.MfaSecondFactor{Otp: yes, Sms: no},
		AccountRecovery: awscognito.AccountRecovery_EMAIL_ONLY,
		PasswordPolicy: &awscognito.PasswordPolicy{MinLength: num(12), RequireDigits: yes, RequireLowercase: yes,
			RequireUppercase: yes, RequireSymbols: yes}})
	Accept(pool, "AwsSolutions-COG2", "the second factor is each user's choice; a deployment that requires it brings its own issuer")
	Accept(pool, "AwsSolutions-COG8", "the plus plan costs by the user, and threat protection is the deployer's choice")
	pool.AddDomain(str("Login"), &awscognito.UserPoolDomainOptions{CognitoDomain: &awscognito.CognitoDomainOptions{
		// The prefix is unique in the region over all accounts.
		DomainPrefix: str(fmt.Sprintf("tideline-%s-%s", e.props.Stage, *awscdk.Aws_ACCOUNT_ID()))}})
	client := pool.AddClient(str("Page"), &awscognito.UserPoolClientOptions{GenerateSecret: no,
		PreventUserExistenceErrors: yes, OAuth: &awscognito.OAuthSettings{
			CallbackUrls: &[]*string{str(*e.URL + "/")}, LogoutUrls: &[]*string{str(*e.URL + "/")},
			Flows:  &awscognito.OAuthFlows{AuthorizationCodeGrant: yes},
			Scopes: &[]awscognito.OAuthScope{awscognito.OAuthScope_OPENID(), awscognito.OAuthScope_EMAIL()}}})
	awscognito.NewCfnUserPoolGroup(e, str("Operators"), &awscognito.CfnUserPoolGroupProps{
		UserPoolId: pool.UserPoolId(), GroupName: str(operatorGroup), Description: str("may see logs and streams")})
	return pool.UserPoolProviderUrl(), client.UserPoolClientId()
}
