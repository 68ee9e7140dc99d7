package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// Quota asks for the quota that the account has in this region, which is the default where nobody has asked for more. Codes are Service Quotas'.
func (a *Account) Quota(ctx context.Context, service, code string) (float64, error) {
	in := map[string]any{"ServiceCode": service, "QuotaCode": code}
	var answer struct{ Quota struct{ Value float64 } }
	err := a.Call(ctx, "servicequotas", "ServiceQuotasV20190624.GetServiceQuota", in, &answer)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == "NoSuchResourceException" { // none of the account's own
		err = a.Call(ctx, "servicequotas", "ServiceQuotasV20190624.GetAWSDefaultServiceQuota", in, &answer)
	}
	return answer.Quota.Value, err
}

// Processors asks how many vCPUs an instance type has.
func (a *Account) Processors(ctx context.Context, instance string) (int, error) {
	var answer struct {
		Processors []int `xml:"instanceTypeSet>item>vCpuInfo>defaultVCpus"`
	}
	if err := a.Ask(ctx, "ec2", "DescribeInstanceTypes", url.Values{"InstanceType.1": {instance}}, &answer); err != nil {
		return 0, err
	}
	if len(answer.Processors) != 1 || answer.Processors[0] < 1 {
		return 0, fmt.Errorf("ec2 DescribeInstanceTypes: no vCPUs of %s in the answer", instance)
	}
	return answer.Processors[0], nil
}

// Concurrency asks how many invocations of all functions of the account and region together may run at a time, those left out that are reserved for
// some function.
func (a *Account) Concurrency(ctx context.Context) (int, error) {
	raw, err := a.send(ctx, request{http.MethodGet, "lambda", "GetAccountSettings", "/2016-08-19/account-settings", nil, http.Header{}})
	if err != nil {
		return 0, err
	}
	var answer struct {
		AccountLimit struct{ UnreservedConcurrentExecutions *int }
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return 0, fmt.Errorf("lambda GetAccountSettings: %w", err)
	}
	if answer.AccountLimit.UnreservedConcurrentExecutions == nil {
		return 0, errors.New("lambda GetAccountSettings: no limit in the answer")
	}
	return *answer.AccountLimit.UnreservedConcurrentExecutions, nil
}
