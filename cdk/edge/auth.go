package edge

import (
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
	// Cognito makes a user pool and uses it as the issuer.
	Cognito bool
}

// issuer is where signed-in users come from; nil means guests.
type issuer struct{ url, audience, roleClaim *string }

func (e *Edge) declareIssuer() *issuer {
	a := e.props.Auth
	switch {
	case a.Cognito:
		url, audience := e.userPool()
		return &issuer{url, audience, str("cognito:groups")}
	case a.Issuer != "":
		return &issuer{str(a.Issuer), str(a.Audience), str(a.RoleClaim)}
	}
	return nil
}

// userPool makes a Cognito pool with its hosted login page, and answers the issuer and the audience of its tokens.
func (e *Edge) userPool() (issuer, audience *string) {
	pool := awscognito.NewUserPool(e, str("Users"), &awscognito.UserPoolProps{
		SelfSignUpEnabled: no, SignInAliases: &awscognito.SignInAliases{Email: yes},
		RemovalPolicy: e.Removal(), DeletionProtection: jsii.Bool(e.props.Protect), FeaturePlan: awscognito.FeaturePlan_ESSENTIALS,
		Mfa: awscognito.Mfa_OPTIONAL, MfaSecondFactor: &awscognito.MfaSecondFactor{Otp: yes, Sms: no},
		AccountRecovery: awscognito.AccountRecovery_EMAIL_ONLY,
		PasswordPolicy: &awscognito.PasswordPolicy{MinLength: num(12), RequireDigits: yes, RequireLowercase: yes,
			RequireUppercase: yes, RequireSymbols: yes}})
	suppress(pool, "AwsSolutions-COG2", "the second factor is each user's choice; a deployment that requires it brings its own issuer")
	suppress(pool, "AwsSolutions-COG8", "the plus plan costs by the user, and threat protection is the deployer's choice")
	pool.AddDomain(str("Login"), &awscognito.UserPoolDomainOptions{CognitoDomain: &awscognito.CognitoDomainOptions{
		// The prefix is unique in the region over all accounts.
		DomainPrefix: str(fmt.Sprintf("tideline-%s-%s", e.props.Stage, *awscdk.Aws_ACCOUNT_ID()))}})
	client := pool.AddClient(str("Page"), &awscognito.UserPoolClientOptions{GenerateSecret: no,
		PreventUserExistenceErrors: yes, OAuth: &awscognito.OAuthSettings{
			CallbackUrls: &[]*string{str(*e.URL + "/")}, LogoutUrls: &[]*string{str(*e.URL + "/")},
			Flows:  &awscognito.OAuthFlows{AuthorizationCodeGrant: yes},
			Scopes: &[]awscognito.OAuthScope{awscognito.OAuthScope_OPENID(), awscognito.OAuthScope_EMAIL()}}})
	awscognito.NewCfnUserPoolGroup(e, str("Operators"), &awscognito.CfnUserPoolGroupProps{
		UserPoolId: pool.UserPoolId(), GroupName: str("operator"), Description: str("may see logs and streams")})
	return pool.UserPoolProviderUrl(), client.UserPoolClientId()
}
