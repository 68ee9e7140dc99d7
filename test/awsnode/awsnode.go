// Package awsnode stands in, on loopback, for what a node in AWS speaks to: the metadata of its instance, Auto Scaling and CloudWatch.
//
// They answer as AWS documents it, in the protocols that the SDK uses: IMDSv2 with session tokens and role credentials, a lifecycle action that is
// accepted in Terminating:Wait only, figures that are checked against CloudWatch's limits. Signatures are looked at and not verified.
package awsnode

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
)

// T is the part of testing.TB that this package needs.
type T interface {
	Helper()
	Cleanup(func())
}

// Region is where everything stands.
const Region = "eu-west-1"

// Fault is what a service does instead of answering.
type Fault int

// Faults.
const (
	None     Fault = iota
	Throttle       // 400 in the service's own words
	Broken         // 500
	Hang           // no answer, until the caller gives up
)

// Cloud is one account with one Auto Scaling group. It is safe for concurrent use.
type Cloud struct {
	Group, Hook             string
	autoScaling, cloudWatch *httptest.Server

	mu        sync.Mutex
	faults    map[string]Fault // by service
	asked     map[string]int   // requests, by service
	instances map[string]*Instance
	data      []Datum
	wrong     []string
}

// Names of the services.
const (
	AutoScaling = "autoscaling"
	CloudWatch  = "monitoring"
)

// Start starts an account that ends with t.
func Start(t T, group, hook string) *Cloud {
	t.Helper()
	c := &Cloud{Group: group, Hook: hook, faults: map[string]Fault{}, asked: map[string]int{}, instances: map[string]*Instance{}}
	c.autoScaling = httptest.NewServer(c.service(AutoScaling, c.serveAutoScaling, throttledQuery))
	c.cloudWatch = httptest.NewServer(c.service(CloudWatch, c.serveCloudWatch, throttledCBOR))
	t.Cleanup(func() {
		for _, s := range []*httptest.Server{c.autoScaling, c.cloudWatch} {
			s.CloseClientConnections()
			s.Close()
		}
	})
	return c
}

// SetFault has a service misbehave until it is set to None.
func (c *Cloud) SetFault(service string, f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[service] = f
}

// Asked is how many requests a service has had.
func (c *Cloud) Asked(service string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[service]
}

// Wrong is what AWS would have refused as malformed, of everything that was sent.
func (c *Cloud) Wrong() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.wrong)
}

func (c *Cloud) complain(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, what)
}

// service counts, looks at the signature, and misbehaves if it is told to.
func (c *Cloud) service(name string, serve, throttled http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.asked[name]++
		fault := c.faults[name]
		c.mu.Unlock()
		if !strings.Contains(r.Header.Get("Authorization"), "/"+Region+"/"+name+"/aws4_request") {
			c.complain(name + ": not signed for it: " + r.Header.Get("Authorization"))
		}
		switch fault {
		case Throttle:
			throttled(w, r)
		case Broken:
			w.WriteHeader(http.StatusInternalServerError)
		case Hang:
			_, _ = io.Copy(io.Discard, r.Body) // the server notices that the caller is gone only when it has read everything
			<-r.Context().Done()
		default:
			serve(w, r)
		}
	})
}
