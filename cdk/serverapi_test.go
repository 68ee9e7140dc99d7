package main

import (
	"slices"
	"strings"
	"testing"
)

// The server API is on the private port, beside metrics and profiles. Closed means that there is nothing of it; open means for one security group, one path, one method.
func TestTheServerAPIIsClosedUnlessASecurityGroupIsNamed(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		for id, r := range tm.Resources {
			if strings.HasPrefix(id, "EdgeServerAPI") || r.Type == "AWS::SecretsManager::Secret" {
				t.Errorf("%s", id)
			}
		}
		if tm.Outputs["ServerApiURL"] != nil || strings.Contains(userData(t, tm), "API_KEYS") {
			t.Error("something speaks of it")
		}
	}, "dev", "prod", "serverless")
}

func TestTheServerAPIIsReachedByOneGroupThroughABalancerOfItsOwn(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		prefixed(t, tm.into(t, "EdgeServerAPIAccess"), "sg-0123456789abcdef0 80-80")
		for _, r := range tm.rules(t, "Egress") {
			if strings.HasPrefix(r.group, "EdgeServerAPIAccess") && (!strings.HasPrefix(r.peer, "EdgeNodeAccess") || r.ports != "9000-9000") {
				t.Errorf("its balancer may go to %s, ports %s", r.peer, r.ports)
			}
		}
		b := tm.one(t, "AWS::ElasticLoadBalancingV2::LoadBalancer", "EdgeServerAPI")
		b.want(t, "Scheme", "internal")
		b.wantAttribute(t, "LoadBalancerAttributes", "access_logs.s3.prefix", "api-access")
		if groups, _ := b.get("SecurityGroups").([]any); len(groups) != 1 || !mentions(groups[0], "EdgeServerAPIAccess") {
			t.Errorf("groups %s", plain(groups))
		}
		var forwards []resource
		for _, l := range tm.all(t, "AWS::ElasticLoadBalancingV2::Listener") {
			if mentions(l.get("LoadBalancerArn"), "EdgeServerAPI") {
				l.want(t, "DefaultActions.0.Type", "fixed-response")
				l.want(t, "DefaultActions.0.FixedResponseConfig.StatusCode", "404")
			}
			if mentions(l.get("DefaultActions"), "EdgeServerAPITargets") {
				t.Errorf("%s forwards everything to the private port", l.ID)
			}
		}
		for _, r := range tm.all(t, "AWS::ElasticLoadBalancingV2::ListenerRule") {
			if mentions(r.get("Actions"), "EdgeServerAPITargets") {
				forwards = append(forwards, r)
			}
		}
		if len(forwards) != 1 || !mentions(forwards[0].get("ListenerArn"), "EdgeServerAPIListener") ||
			plain(forwards[0].get("Conditions")) != `[{"Field":"path-pattern","PathPatternConfig":{"Values":["/api/*"]}},{"Field":"http-request-method","HttpRequestMethodConfig":{"Values":["POST"]}}]` {
			t.Fatalf("the private port is reached by %s", plain(forwards))
		}
		groups, _ := tm.one(t, "AWS::AutoScaling::AutoScalingGroup", "EdgeNodesASG").get("TargetGroupARNs").([]any)
		if len(groups) != 2 {
			t.Errorf("nodes are registered with %s", plain(groups))
		}
		if tm.Outputs["ServerApiURL"] == nil || tm.Outputs["ServerApiKeys"] == nil {
			t.Error("nobody is told where it is")
		}
	}, "alb", "existing")
}

// Nobody types a key, and none is in the template: it is made at deploy, and instances read it by their role.
func TestTheServerAPIsKeysAreMadeAtDeployAndReadByTheNodesAlone(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		secrets := tm.all(t, "AWS::SecretsManager::Secret")
		if len(secrets) != 1 || secrets[0].get("SecretString") != nil {
			t.Fatalf("%s", plain(secrets))
		}
		if secrets[0].DeletionPolicy != "Delete" {
			t.Error("keys of an API that was closed would stay, and cost")
		}
		secrets[0].want(t, "GenerateSecretString.PasswordLength", 43)
		secrets[0].want(t, "GenerateSecretString.ExcludePunctuation", true) // no commas, which separate keys
		data := userData(t, tm)
		if !strings.Contains(data, "\nAPI_KEYS_FILE=/etc/tideline/api-keys\n") || !strings.Contains(data, "\nAPI_KEYS_SECRET=${{\"Ref\":\""+secrets[0].ID+"\"}}\n") {
			t.Errorf("user data does not name the secret:\n%s", data)
		}
		var may []string
		for _, s := range tm.statements(t) {
			if slices.Contains(texts(s.body["Action"]), "secretsmanager:GetSecretValue") {
				may = append(may, s.holder.ID)
				if !mentions(s.body["Resource"], secrets[0].ID) {
					t.Errorf("%s reads %s", s.holder.ID, plain(s.body["Resource"]))
				}
			}
		}
		if len(may) != 1 || !strings.HasPrefix(may[0], "EdgeNodeRole") {
			t.Errorf("%v may read it", may)
		}
	}, "alb", "existing")
}

// Live Tail shows what is in a log group to whoever is an operator: only the groups that the deployer said.
func TestNodesTailOnlyTheLogGroupsThatWereNamed(t *testing.T) {
	tails := func(tm template) (resources []string, actions int) {
		for _, s := range tm.statements(t) {
			if slices.Contains(texts(s.body["Action"]), "logs:StartLiveTail") {
				actions++
				resources = append(resources, texts(s.body["Resource"])...)
				if !strings.HasPrefix(s.holder.ID, "EdgeNodeRole") {
					t.Errorf("%s may tail", s.holder.ID)
				}
			}
		}
		return resources, actions
	}
	for _, name := range []string{"dev", "alb", "serverless"} {
		if _, n := tails(synth(t, name)); n != 0 || strings.Contains(userData(t, synth(t, name)), "LOG_GROUPS") {
			t.Errorf("%s: nodes may tail", name)
		}
	}
	for name, others := range map[string][]string{"prod": nil, "existing": {":log-group:/billing/api\"", ":log-group:/billing/api:*\"", ":log-group:/aws/lambda/shop-*\""}} {
		tm := synth(t, name)
		if !strings.Contains(userData(t, tm), "\nLOG_GROUPS=on\n") {
			t.Errorf("%s: nodes are not told", name)
		}
		resources, _ := tails(tm)
		seen := strings.Join(resources, "\n")
		for _, g := range tm.all(t, "AWS::Logs::LogGroup") {
			if !strings.Contains(seen, g.ID) {
				t.Errorf("%s: %s is ours and can't be watched", name, g.ID)
			}
		}
		for _, r := range resources {
			named := false
			for _, g := range tm.all(t, "AWS::Logs::LogGroup") {
				named = named || strings.Contains(r, `"`+g.ID+`"`)
			}
			for _, o := range others {
				named = named || strings.Contains(r, o)
			}
			if !named {
				t.Errorf("%s: nodes may tail %s", name, r)
			}
		}
	}
}
