package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Timeout is how long one answer of the metadata may take.
const Timeout = time.Second

// tokenTTL is how long a session token of the metadata service is good for, in seconds; it is renewed at half of it.
const tokenTTL = 300

// bodyMost is the longest answer that is read, in bytes.
const bodyMost = 4 << 10

// Metadata asks one metadata service. It is safe for concurrent use; questions are asked one after the other, each for Timeout at most.
type Metadata struct {
	endpoint string
	client   http.Client

	mu    sync.Mutex
	token string
	renew time.Time
	known Instance // as far as it could be read
}

// NewMetadata is the metadata service at endpoint: http://169.254.169.254 on an instance. It is not asked before it is needed.
func NewMetadata(endpoint string) *Metadata {
	return &Metadata{endpoint: strings.TrimSuffix(endpoint, "/"),
		client: http.Client{Timeout: Timeout, Transport: &http.Transport{Proxy: nil, MaxIdleConns: 1, IdleConnTimeout: time.Minute}}}
}

// Instance is what doesn't change while an instance lives.
type Instance struct {
	ID    string // i-…
	Zone  string // availability zone
	Group string // name of the Auto Scaling group; empty outside of one, or when tags are not in the metadata
}

// Instance answers what is known; what was read once is not asked again. An error says what is missing, but for the group: an instance
// may have none.
func (m *Metadata) Instance(ctx context.Context) (Instance, error) {
	m.mu.Lock()
	known := m.known
	m.mu.Unlock()
	var errs []error
	read := func(into *string, path string, required bool) {
		if *into != "" {
			return
		}
		value, found, err := m.get(ctx, path)
		if err == nil && !found && required {
			err = fmt.Errorf("metadata %s: not there", path)
		}
		*into = value
		errs = append(errs, err)
	}
	read(&known.ID, "instance-id", true)
	read(&known.Zone, "placement/availability-zone", true)
	read(&known.Group, "tags/instance/aws:autoscaling:groupName", false)
	m.mu.Lock()
	m.known = known
	m.mu.Unlock()
	return known, errors.Join(errs...)
}

// leaving tells whether the group has decided that the instance goes, and the target lifecycle state that says so.
func (m *Metadata) leaving(ctx context.Context) (state string, leaving bool, err error) {
	state, found, err := m.get(ctx, "autoscaling/target-lifecycle-state")
	return state, found && (state == "Terminated" || strings.HasPrefix(state, "Warmed:")), err
}

// get reads one item of the metadata; 404 is found == false.
func (m *Metadata) get(ctx context.Context, path string) (value string, found bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Now().After(m.renew) {
		token, status, err := m.do(ctx, http.MethodPut, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", fmt.Sprint(tokenTTL))
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("metadata token: status %d", status)
		}
		if err != nil {
			return "", false, err
		}
		m.token, m.renew = token, time.Now().Add(tokenTTL/2*time.Second)
	}
	value, status, err := m.do(ctx, http.MethodGet, "/latest/meta-data/"+path, "X-aws-ec2-metadata-token", m.token)
	switch {
	case err != nil:
		return "", false, err
	case status == http.StatusOK:
		return value, true, nil
	case status == http.StatusNotFound:
		return "", false, nil
	case status == http.StatusUnauthorized:
		m.renew = time.Time{} // the token is no longer good
	}
	return "", false, fmt.Errorf("metadata %s: status %d", path, status)
}

func (m *Metadata) do(ctx context.Context, method, path, header, value string) (body string, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, m.endpoint+path, nil)
	if err != nil {
		return "", 0, err
	}
	req.Header.Set(header, value)
	res, err := m.client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, bodyMost))
	if err != nil {
		return "", 0, err
	}
	return strings.TrimSpace(string(b)), res.StatusCode, nil
}

// close gives up connections that nobody uses.
func (m *Metadata) close() { m.client.CloseIdleConnections() }
