package awsnode

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"
)

// Instance is one machine of the group, and its metadata service. It is safe for concurrent use.
type Instance struct {
	ID, Zone string
	URL      string // of the metadata service

	cloud    *Cloud
	lifetime []string // states, the newest last; cloud.mu guards it
	away     bool
	noTags   bool
}

// Launch adds an instance that is in service. Its metadata ends with t.
func (c *Cloud) Launch(t T, id, zone string) *Instance {
	t.Helper()
	i := &Instance{ID: id, Zone: zone, cloud: c, lifetime: []string{"InService"}}
	server := httptest.NewServer(http.HandlerFunc(i.serve))
	t.Cleanup(server.Close)
	i.URL = server.URL
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instances[id] = i
	return i
}

// Env is the environment of a node on the instance: its settings, and where the SDK finds AWS. Credentials come from the metadata.
func (i *Instance) Env(namespace string) []string {
	return append([]string{"METADATA_URL=" + i.URL, "LIFECYCLE_HOOK=" + i.cloud.Hook, "METRICS_NAMESPACE=" + namespace}, i.SDKEnv()...)
}

// SDKEnv is the SDK's part of Env.
func (i *Instance) SDKEnv() []string {
	return []string{"AWS_REGION=" + Region, "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + i.URL, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"AWS_ENDPOINT_URL_AUTO_SCALING=" + i.cloud.autoScaling.URL, "AWS_ENDPOINT_URL_CLOUDWATCH=" + i.cloud.cloudWatch.URL}
}

// Enter puts the instance into a lifecycle state: "Terminating", "Terminating:Wait". The metadata's target state is Terminated from the first on.
func (i *Instance) Enter(state string) {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	i.lifetime = append(i.lifetime, state)
}

// States are the lifecycle states that the instance has been in, the newest last.
func (i *Instance) States() []string {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	return slices.Clone(i.lifetime)
}

// SetAway has the metadata answer 503.
func (i *Instance) SetAway(away bool) {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	i.away = away
}

// SetTags is whether the instance's tags are in its metadata.
func (i *Instance) SetTags(on bool) {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	i.noTags = !on
}

const sessionToken = "metadata-session-token"

func (i *Instance) serve(w http.ResponseWriter, r *http.Request) {
	i.cloud.mu.Lock()
	defer i.cloud.mu.Unlock()
	switch {
	case i.away:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
		_, _ = io.WriteString(w, sessionToken) // whoever is gone doesn't hear it
		return
	case r.Header.Get("X-aws-ec2-metadata-token") != sessionToken:
		w.WriteHeader(http.StatusUnauthorized) // IMDSv2 is required
		return
	}
	target := "InService"
	if len(i.lifetime) > 1 {
		target = "Terminated"
	}
	items := map[string]string{
		"instance-id":                             i.ID,
		"placement/availability-zone":             i.Zone,
		"autoscaling/target-lifecycle-state":      target,
		"tags/instance/aws:autoscaling:groupName": i.cloud.Group,
		"iam/security-credentials/":               "node-role",
		"iam/security-credentials/node-role":      credentials(),
	}
	if i.noTags {
		delete(items, "tags/instance/aws:autoscaling:groupName")
	}
	const root = "/latest/meta-data/"
	value, found := items[r.URL.Path[min(len(root), len(r.URL.Path)):]]
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = io.WriteString(w, value)
}

func credentials() string {
	b, err := json.Marshal(map[string]string{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "secret", "Token": "session",
		"LastUpdated": time.Now().UTC().Format(time.RFC3339), "Expiration": time.Now().Add(6 * time.Hour).UTC().Format(time.RFC3339)})
	if err != nil {
		panic(err) // strings
	}
	return string(b)
}

// serveAutoScaling knows CompleteLifecycleAction, in the query protocol.
func (c *Cloud) serveAutoScaling(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.Form.Get("Action") != "CompleteLifecycleAction" || r.Form.Get("LifecycleActionResult") != "CONTINUE" {
		c.complain(fmt.Sprintf("autoscaling: %v %v", r.Form, err))
		queryError(w, "ValidationError", "1 validation error detected")
		return
	}
	if r.Form.Get("AutoScalingGroupName") != c.Group || r.Form.Get("LifecycleHookName") != c.Hook {
		c.complain(fmt.Sprintf("autoscaling: %v", r.Form))
		queryError(w, "AccessDenied", "User is not authorized to perform: autoscaling:CompleteLifecycleAction")
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.instances[r.Form.Get("InstanceId")]
	if i == nil || i.lifetime[len(i.lifetime)-1] != "Terminating:Wait" {
		queryError(w, "ValidationError", "No active Lifecycle Action found with instance ID "+r.Form.Get("InstanceId"))
		return
	}
	i.lifetime = append(i.lifetime, "Terminating:Proceed")
	w.Header().Set("Content-Type", "text/xml")
	_, _ = io.WriteString(w, `<CompleteLifecycleActionResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><CompleteLifecycleActionResult/>`+
		`<ResponseMetadata><RequestId>`+time.Now().Format(time.RFC3339Nano)+`</RequestId></ResponseMetadata></CompleteLifecycleActionResponse>`)
}

func throttledQuery(w http.ResponseWriter, _ *http.Request) {
	queryError(w, "Throttling", "Rate exceeded")
}

// queryError answers an error; each has a request id of its own, as AWS's have.
func queryError(w http.ResponseWriter, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error>`+
		`<RequestId>%d</RequestId></ErrorResponse>`, code, message, time.Now().UnixNano())
}
