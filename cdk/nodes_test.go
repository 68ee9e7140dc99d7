package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/shared/metric"
)

func seconds(d time.Duration) string { return fmt.Sprint(int(d / time.Second)) }

// attributes of a load balancer or target group, by key.
func (r resource) attributes(t *testing.T, path string) map[string]string {
	t.Helper()
	list, ok := r.get(path).([]any)
	if !ok {
		t.Fatalf("%s has no %s", r.ID, path)
	}
	out := map[string]string{}
	for _, a := range list {
		out[at(a, "Key").(string)] = strings.Trim(plain(at(a, "Value")), `"`)
	}
	return out
}

func (r resource) wantAttribute(t *testing.T, path, key, want string) {
	t.Helper()
	if got := r.attributes(t, path)[key]; got != want {
		t.Errorf("%s %s is %q, want %q", r.ID, key, got, want)
	}
}

// The order of the times is held by shared/limit; this holds that AWS is told the same ones.
func TestTheDrainIsDeclaredWithSharedNumbers(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		targets := tm.one(t, "AWS::ElasticLoadBalancingV2::TargetGroup", "EdgeNodeTargets")
		const a = "TargetGroupAttributes"
		targets.wantAttribute(t, a, "deregistration_delay.timeout_seconds", seconds(limit.DeregistrationDelay))
		targets.wantAttribute(t, a, "stickiness.enabled", "true")
		targets.wantAttribute(t, a, "stickiness.type", "lb_cookie")
		targets.wantAttribute(t, a, "stickiness.lb_cookie.duration_seconds", seconds(limit.StickyTTL))
		targets.wantAttribute(t, a, "load_balancing.algorithm.type", "least_outstanding_requests")
		targets.want(t, "HealthCheckIntervalSeconds", limit.HealthInterval.Seconds())
		targets.want(t, "HealthCheckTimeoutSeconds", limit.HealthTimeout.Seconds())
		targets.want(t, "UnhealthyThresholdCount", limit.HealthFailures)
		hook := tm.all(t, "AWS::AutoScaling::LifecycleHook")[0]
		hook.want(t, "HeartbeatTimeout", limit.HookHeartbeat.Seconds())
		hook.want(t, "DefaultResult", "CONTINUE")
		hook.want(t, "LifecycleTransition", "autoscaling:EC2_INSTANCE_TERMINATING")
		data := userData(t, tm)
		for _, line := range []string{"DRAIN_GRACE=" + limit.DrainGrace.String(), "DRAIN_WINDOW=" + limit.DrainWindow.String(),
			"LIFECYCLE_HOOK=" + hook.get("LifecycleHookName").(string)} {
			if !strings.Contains(data, line+"\n") {
				t.Errorf("user data does not say %s", line)
			}
		}
	})
}

func TestIdleTimeoutsNest(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		b := tm.all(t, "AWS::ElasticLoadBalancingV2::LoadBalancer")[0]
		b.wantAttribute(t, "LoadBalancerAttributes", "idle_timeout.timeout_seconds", seconds(limit.IdleTimeout))
		b.wantAttribute(t, "LoadBalancerAttributes", "routing.http.drop_invalid_header_fields.enabled", "true")
		for _, d := range tm.maybe("AWS::CloudFront::Distribution") {
			origin := at(d.get("DistributionConfig.Origins"), "0.VpcOriginConfig")
			keep, read := plain(at(origin, "OriginKeepaliveTimeout")), plain(at(origin, "OriginReadTimeout"))
			if keep != seconds(limit.FrontKeepAlive) || read != seconds(limit.FrontReadTimeout) {
				t.Errorf("keep-alive %s, read timeout %s", keep, read)
			}
			if at(d.get("DistributionConfig.Origins"), "0.ResponseCompletionTimeout") != nil {
				t.Error("a response completion timeout would end long-lived connections")
			}
		}
	})
}

func TestTrafficIsLogged(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		b := tm.all(t, "AWS::ElasticLoadBalancingV2::LoadBalancer")[0]
		for _, log := range []string{"access_logs", "connection_logs"} {
			b.wantAttribute(t, "LoadBalancerAttributes", log+".s3.enabled", "true")
		}
		if !mentions(b.DependsOn, "EdgeTrafficLogsPolicy") {
			t.Error("the balancer could be made before it may write its logs")
		}
		policy := tm.one(t, "AWS::S3::BucketPolicy", "EdgeTrafficLogsPolicy")
		for _, prefix := range []string{"/access/AWSLogs/", "/connection/AWSLogs/"} {
			if !strings.Contains(plain(policy.get("PolicyDocument")), prefix) {
				t.Errorf("nobody may write %s", prefix)
			}
		}
	})
}

func TestCloudFrontPassesEverythingAndCachesNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		d := tm.all(t, "AWS::CloudFront::Distribution")[0]
		const b = "DistributionConfig.DefaultCacheBehavior."
		d.want(t, b+"CachePolicyId", "4135ea2d-6df8-44a3-9df3-4b5a84be39ad")         // CachingDisabled
		d.want(t, b+"OriginRequestPolicyId", "216adef6-5c7f-47e4-b989-5492eafa07d3") // AllViewer
		d.want(t, b+"ViewerProtocolPolicy", "redirect-to-https")
		if n := len(d.get(b + "AllowedMethods").([]any)); n != 7 {
			t.Errorf("%d methods", n)
		}
		tm.all(t, "AWS::CloudFront::ResponseHeadersPolicy")[0].want(t,
			"ResponseHeadersPolicyConfig.SecurityHeadersConfig.StrictTransportSecurity.AccessControlMaxAgeSec", 31536000)
		for _, l := range tm.all(t, "AWS::ElasticLoadBalancingV2::Listener") {
			if l.get("DefaultActions.0.Type") == "redirect" {
				t.Error("a redirect on the load balancer would loop behind CloudFront")
			}
		}
	}, "dev", "prod", "serverless", "existing")
}

// The CDK's own id of a VPC origin holds an index, which changes when another is added; the origin could not follow.
func TestTheOriginHasAFixedID(t *testing.T) {
	for _, name := range []string{"dev", "prod", "serverless", "existing"} {
		if id := synth(t, name).all(t, "AWS::CloudFront::VpcOrigin")[0].ID; id != "EdgeOrigin7BC73449" {
			t.Errorf("%s: %s", name, id)
		}
	}
}

func TestALBModeSpeaksModernTLSAndRedirects(t *testing.T) {
	tm := synth(t, "alb")
	for _, l := range tm.all(t, "AWS::ElasticLoadBalancingV2::Listener") {
		if l.get("Protocol") == "HTTPS" {
			l.want(t, "SslPolicy", "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09")
			l.wantAttribute(t, "ListenerAttributes", "routing.http.response.strict_transport_security.header_value", "max-age=31536000")
			continue
		}
		if !strings.HasPrefix(l.ID, "EdgeServerAPI") { // which is inside
			l.want(t, "DefaultActions.0.Type", "redirect")
		}
	}
	if n := len(tm.maybe("AWS::CloudFront::Distribution")); n != 0 {
		t.Errorf("%d distributions", n)
	}
	tm.all(t, "AWS::WAFv2::WebACLAssociation")
}

func TestProxiesAreCountedFromTheRight(t *testing.T) {
	for name, hops := range map[string]string{"dev": "2", "prod": "2", "alb": "1", "existing": "2"} {
		tm := synth(t, name)
		if !strings.Contains(userData(t, tm), "TRUSTED_HOPS="+hops+"\n") {
			t.Errorf("%s: nodes trust another number of proxies than %s", name, hops)
		}
		tm.one(t, "AWS::Lambda::Function", "EdgeSessionFunction").want(t, "Environment.Variables.TRUSTED_HOPS", hops)
	}
}

func TestNodesAreLockedDownInstances(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		l := tm.all(t, "AWS::EC2::LaunchTemplate")[0]
		const d = "LaunchTemplateData."
		l.want(t, d+"MetadataOptions.HttpTokens", "required")
		l.want(t, d+"MetadataOptions.HttpPutResponseHopLimit", 1)
		l.want(t, d+"MetadataOptions.InstanceMetadataTags", "enabled")
		l.want(t, d+"BlockDeviceMappings.0.Ebs.Encrypted", true)
		if l.get(d+"KeyName") != nil {
			t.Error("there is an SSH key")
		}
		if !mentions(l.get(d+"SecurityGroupIds"), "EdgeNodeAccess") {
			t.Error("nodes have another security group")
		}
	})
}

// $Latest would let instances differ, and a roll-back would bring back nothing.
func TestTheGroupUsesANumberedTemplateVersion(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		g := tm.all(t, "AWS::AutoScaling::AutoScalingGroup")[0]
		if v := at(g.get("LaunchTemplate.Version"), "Fn::GetAtt.1"); v != "LatestVersionNumber" {
			t.Errorf("version %s", plain(g.get("LaunchTemplate.Version")))
		}
	})
}

func TestADeploymentReplacesInstancesAndWatchesAlarms(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		g := tm.all(t, "AWS::AutoScaling::AutoScalingGroup")[0]
		refresh := g.UpdatePolicy["AutoScalingInstanceRefresh"]
		if refresh == nil {
			t.Fatalf("update policy %s", plain(g.UpdatePolicy))
		}
		p := at(refresh, "Preferences")
		if plain(at(p, "MinHealthyPercentage")) != "100" || len(texts(at(p, "AlarmSpecification.Alarms"))) < 2 {
			t.Errorf("refresh %s", plain(refresh))
		}
		if g.get("NewInstancesProtectedFromScaleIn") == true {
			t.Error("protected instances never scale in")
		}
		if g.get("DesiredCapacity") != nil {
			t.Error("a deployment would set the fleet's size back")
		}
		if !strings.Contains(plain(g.get("HealthCheckType")), "ELB") {
			t.Errorf("health checks %s", plain(g.get("HealthCheckType")))
		}
	})
}

func TestAlarmsCanBePutAsideForTheDeploymentThatFixesThem(t *testing.T) {
	tm, _ := synthWith(t, "urgent", map[string]any{"refreshAlarms": "false"}, testRegion)
	g := tm.all(t, "AWS::AutoScaling::AutoScalingGroup")[0]
	if refresh := plain(g.UpdatePolicy["AutoScalingInstanceRefresh"]); refresh == "null" || strings.Contains(refresh, "AlarmSpecification") {
		t.Errorf("refresh %s", refresh)
	}
}

func TestTheGroupScalesOnConnectionsAndOutOnlyOnProcessors(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		policies := tm.all(t, "AWS::AutoScaling::ScalingPolicy")
		if len(policies) != 2 {
			t.Fatalf("%d policies", len(policies))
		}
		const c = "TargetTrackingConfiguration."
		for _, p := range policies {
			if p.get(c+"PredefinedMetricSpecification") != nil {
				p.want(t, c+"DisableScaleIn", true)
				p.want(t, c+"TargetValue", 60)
				continue
			}
			const m = c + "CustomizedMetricSpecification."
			p.want(t, m+"MetricName", metric.CloudConnections)
			p.want(t, m+"Statistic", "Average")
			if dims := p.get(m + "Dimensions").([]any); len(dims) != 1 || at(dims[0], "Name") != metric.DimensionGroup {
				t.Errorf("dimensions %s", plain(dims))
			}
			if ns := p.get(m + "Namespace").(string); !strings.HasPrefix(ns, "Tideline/") {
				t.Errorf("namespace %s", ns)
			}
		}
	})
}

func TestTheImageFitsTheInstances(t *testing.T) {
	for name, want := range map[string]string{"dev": "arm64", "prod": "arm64", "alb": "x86_64"} {
		tm := synth(t, name)
		found := false
		for _, p := range tm.Parameters {
			if image, _ := p["Default"].(string); strings.Contains(image, "al2023-ami") {
				found = true
				if !strings.HasSuffix(image, want) {
					t.Errorf("%s: image %s", name, image)
				}
			}
		}
		if !found {
			t.Errorf("%s: no Amazon Linux 2023 image", name)
		}
	}
}

// userData of the launch template, with references as ${…}.
func userData(t *testing.T, tm template) string {
	t.Helper()
	v := tm.all(t, "AWS::EC2::LaunchTemplate")[0].get("LaunchTemplateData.UserData.Fn::Base64")
	if s, ok := v.(string); ok {
		return s
	}
	parts, ok := at(v, "Fn::Join.1").([]any)
	if !ok {
		t.Fatalf("user data %s", plain(v))
	}
	var b strings.Builder
	for _, p := range parts {
		if s, ok := p.(string); ok {
			b.WriteString(s)
		} else {
			b.WriteString("${" + plain(p) + "}")
		}
	}
	return b.String()
}

var checksum = regexp.MustCompile(`echo '([0-9a-f]{64})  '`)

func TestUserDataChecksTheArchiveThatIsDeployed(t *testing.T) {
	everywhere(t, func(t *testing.T, tm template) {
		data := userData(t, tm)
		m := checksum.FindStringSubmatch(data)
		if m == nil {
			t.Fatalf("no checksum in %s", data)
		}
		key := regexp.MustCompile(`/([0-9a-f]{64})\.gz'`).FindStringSubmatch(data)
		if key == nil {
			t.Fatalf("no archive in %s", data)
		}
		archive := readFile(t, dirOf(t, tm), "asset."+key[1]+".tar.gz")
		if sum := sha256.Sum256([]byte(archive)); hex.EncodeToString(sum[:]) != m[1] {
			t.Errorf("user data checks %s, the archive has %x", m[1], sum)
		}
		if n := len(data); n > 16<<10 {
			t.Errorf("user data has %d bytes, EC2 takes 16 KiB", n)
		}
	})
}

func dirOf(t *testing.T, tm template) string {
	t.Helper()
	for _, s := range templates {
		if plain(s.template.Outputs) == plain(tm.Outputs) {
			return s.dir
		}
	}
	t.Fatal("not a variant")
	return ""
}
