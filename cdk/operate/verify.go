package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"tideline/cdk/operate/aws"
)

// Times of verify. heard is how long something published may take to arrive; the goal is milliseconds, this is for a bad network.
const (
	requestTimeout = 15 * time.Second
	heard          = 10 * time.Second
	// visitors is how many fresh browsers may be tried until one meets another node.
	visitors = 24
)

// verify plays a few browsers against a deployment, or against make run, and reports each thing that a user would rely on.
func verify(ctx context.Context, a arguments, out io.Writer) error {
	r := &report{out: out}
	target, group, account := a.url, "", (*aws.Account)(nil)
	if a.context["stage"] != nil {
		deployed, stage, err := open(ctx, a)
		if err != nil {
			return err
		}
		stack, err := deployed.Stack(ctx, "tideline-"+stage)
		if err != nil {
			return err
		}
		if target == "" {
			target = stack.Outputs["URL"]
		}
		account, group = deployed, stack.Outputs["NodeTargets"]
	}
	if target == "" {
		return errors.New("verify what? a URL, or -c stage=…")
	}
	v := &verification{report: r, ctx: ctx, url: target}
	v.page()
	v.privateEndpoints()
	if ann := v.session("first visitor"); ann != nil {
		v.conversation(ann)
	}
	if group != "" {
		healthy(ctx, r, account, group)
	}
	return r.err("verify " + target)
}

type verification struct {
	*report
	ctx context.Context
	url string
}

// visitor is a browser: a cookie jar, a user, a token.
type visitor struct {
	client *http.Client
	jar    http.CookieJar
	url    string
	User   string `json:"user"`
	Token  string `json:"token"`
}

func newVisitor(target string) (*visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &visitor{client: &http.Client{Jar: jar, Timeout: requestTimeout}, jar: jar, url: target}, nil
}

// ask makes a request as the page would; body and out may be nil.
func (b *visitor) ask(ctx context.Context, method, path string, body, out any) (*http.Response, error) {
	var send io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, b.url+path, send)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Origin", b.url)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if b.Token != "" {
		r.Header.Set("Authorization", "Bearer "+b.Token)
	}
	answer, err := b.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, 4<<20))
	if err != nil {
		return answer, err
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return answer, fmt.Errorf("%s %s: %s: %.200s", method, path, answer.Status, raw)
	}
	if out != nil {
		if err := json.Unmarshal(raw, out); err != nil {
			return answer, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	return answer, nil
}

// page: served by a node, with its security headers, and with the cookie that keeps a browser at its node.
func (v *verification) page() {
	b, err := newVisitor(v.url)
	if err != nil {
		v.bad("page", "%v", err)
		return
	}
	answer, err := b.ask(v.ctx, http.MethodGet, "/", nil, nil)
	if err != nil {
		v.bad("page", "%v", err)
		return
	}
	node := answer.Header.Get("X-Tideline-Node")
	switch {
	case !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/html"):
		v.bad("page", "is %s", answer.Header.Get("Content-Type"))
	case node == "":
		v.bad("page", "did not come from a node: no X-Tideline-Node")
	case answer.Header.Get("Content-Security-Policy") == "":
		v.bad("page", "has no content security policy")
	default:
		v.ok("page", "from node %s", node)
	}
	if strings.HasPrefix(v.url, "https://") && answer.Header.Get("Strict-Transport-Security") == "" {
		v.bad("hsts", "no Strict-Transport-Security")
	}
	at, _ := url.Parse(v.url) // has answered
	for _, c := range b.jar.Cookies(at) {
		if c.Name == "AWSALB" {
			v.ok("affinity cookie", "AWSALB")
			return
		}
	}
	v.bad("affinity cookie", "no AWSALB: reconnects meet any node")
}

// privateEndpoints must not answer from outside, with whatever status says so; a page in their place is fine.
func (v *verification) privateEndpoints() {
	b, err := newVisitor(v.url)
	if err != nil {
		v.bad("private endpoints", "%v", err)
		return
	}
	var open []string
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/health/websocket", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars"} {
		answer, err := b.ask(v.ctx, http.MethodGet, path, nil, nil)
		if err == nil && !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/html") {
			open = append(open, path)
		}
		if err == nil && strings.HasPrefix(path, "/debug/") && answer.StatusCode == http.StatusOK {
			open = append(open, path)
		}
		if err != nil && answer == nil {
			v.bad("private endpoints", "%v", err)
			return
		}
	}
	if len(open) > 0 {
		v.bad("private endpoints", "open to the world: %s", strings.Join(open, ", "))
		return
	}
	v.ok("private endpoints", "closed")
}

// session signs a guest in and looks at its cookie.
func (v *verification) session(what string) *visitor {
	b, err := newVisitor(v.url)
	if err != nil {
		v.bad("session", "%v", err)
		return nil
	}
	answer, err := b.ask(v.ctx, http.MethodPost, "/api/session", map[string]any{}, b)
	if err != nil {
		if answer != nil && answer.StatusCode == http.StatusForbidden {
			v.unknown("session", "guests are not let in; sign in by hand and look at the page")
		} else {
			v.bad("session", "%v", err)
		}
		return nil
	}
	for _, c := range answer.Cookies() {
		secure := c.Secure || strings.HasPrefix(v.url, "http://")
		if c.HttpOnly && secure && c.SameSite == http.SameSiteLaxMode {
			v.ok("session", "%s is %s", what, b.User)
			return b
		}
	}
	v.bad("session", "no HttpOnly, SameSite=Lax cookie (Secure on https) in %q", answer.Header.Values("Set-Cookie"))
	return b
}

// healthy asks the load balancer about its targets.
func healthy(ctx context.Context, r *report, account *aws.Account, group string) {
	targets, err := account.Targets(ctx, group)
	if !answered(r, "targets", err) {
		return
	}
	good := 0
	for _, t := range targets {
		switch t.State {
		case "healthy":
			good++
		case "draining", "initial":
		default:
			r.bad("targets", "%s is %s: %s", t.ID, t.State, t.Reason)
		}
	}
	if good == 0 {
		r.bad("targets", "none of %d is healthy", len(targets))
		return
	}
	r.ok("targets", "%d healthy of %d", good, len(targets))
}
