// Package lambdahttp runs a function: net/http and event handlers in Lambda, or the same handlers on a port.
//
// In Lambda, events of a load balancer's target group and of function URLs become HTTP requests for the function's http.Handler, and its
// answers the responses that those expect; every other event goes to the function's event handler. One sandbox serves one event at a time.
package lambdahttp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// source says which kind of HTTP event came, and so which kind of response is due.
type source int

const (
	notHTTP     source = iota
	albSingle          // load balancer, one value per header
	albMulti           // load balancer, multi-value headers
	functionURL        // payload format 2.0
)

// event has the fields of both kinds of HTTP events.
type event struct {
	HTTPMethod        string              `json:"httpMethod"`
	Path              *string             `json:"path"`
	Query             map[string]string   `json:"queryStringParameters"`
	MultiValueQuery   map[string][]string `json:"multiValueQueryStringParameters"`
	Headers           map[string]string   `json:"headers"`
	MultiValueHeaders map[string][]string `json:"multiValueHeaders"`
	RawPath           string              `json:"rawPath"`
	RawQuery          string              `json:"rawQueryString"`
	Cookies           []string            `json:"cookies"`
	Body              string              `json:"body"`
	IsBase64Encoded   bool                `json:"isBase64Encoded"`
	RequestContext    struct {
		ELB  *json.RawMessage `json:"elb"`
		HTTP *struct {
			Method   string `json:"method"`
			Path     string `json:"path"`
			SourceIP string `json:"sourceIp"`
		} `json:"http"`
	} `json:"requestContext"`
}

// errRequest says that an HTTP event has no valid HTTP request in it. Its text is for the caller.
var errRequest = errors.New("malformed request")

// parseEvent looks at a payload; notHTTP without error for anything that is no HTTP event.
func parseEvent(payload []byte) (event, source) {
	var e event
	if err := json.Unmarshal(payload, &e); err != nil {
		return event{}, notHTTP
	}
	switch {
	case e.RequestContext.ELB != nil && e.MultiValueHeaders != nil:
		return e, albMulti
	case e.RequestContext.ELB != nil:
		return e, albSingle
	case e.RequestContext.HTTP != nil:
		return e, functionURL
	}
	return event{}, notHTTP
}

// request makes the HTTP request. The path and the query come percent-encoded and are decoded exactly once, by net/url.
func (e *event) request(ctx context.Context, s source) (*http.Request, error) {
	header := e.header(s)
	method, target := e.HTTPMethod, ""
	if s == functionURL {
		method, target = e.RequestContext.HTTP.Method, e.RawPath
	} else if e.Path != nil {
		target = *e.Path
	}
	query := e.query(s)
	if !strings.HasPrefix(target, "/") {
		return nil, fmt.Errorf("%w: path", errRequest)
	}
	if query != "" {
		target += "?" + query
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, fmt.Errorf("%w: path or query", errRequest)
	}
	body, err := e.body()
	if err != nil {
		return nil, fmt.Errorf("%w: body", errRequest)
	}
	r, err := http.NewRequestWithContext(ctx, method, "/", nil)
	if err != nil {
		return nil, fmt.Errorf("%w: method", errRequest)
	}
	r.URL, r.RequestURI, r.Header, r.Host = u, target, header, header.Get("Host")
	header.Del("Host")
	r.RemoteAddr = e.remote(s, header)
	r.ContentLength, r.Body = int64(len(body)), io.NopCloser(bytes.NewReader(body))
	if len(body) == 0 {
		r.Body = http.NoBody
	}
	return r, nil
}

func (e *event) header(s source) http.Header {
	h := http.Header{}
	if s == albMulti {
		for name, values := range e.MultiValueHeaders {
			for _, v := range values {
				h.Add(name, v)
			}
		}
		return h
	}
	for name, v := range e.Headers {
		h.Add(name, v)
	}
	if s == functionURL && len(e.Cookies) > 0 {
		h.Set("Cookie", strings.Join(e.Cookies, "; "))
	}
	return h
}

// query is the query as the client sent it, but for the order of different keys, which a load balancer does not tell.
func (e *event) query(s source) string {
	if s == functionURL {
		return e.RawQuery
	}
	var b strings.Builder
	add := func(k, v string) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(k)
		b.WriteByte('=')
		b.WriteString(v)
	}
	if s == albMulti {
		for k, values := range e.MultiValueQuery {
			for _, v := range values {
				add(k, v)
			}
		}
		return b.String()
	}
	for k, v := range e.Query {
		add(k, v)
	}
	return b.String()
}

func (e *event) body() ([]byte, error) {
	if e.IsBase64Encoded {
		return base64.StdEncoding.DecodeString(e.Body)
	}
	return []byte(e.Body), nil
}

// remote is the address of who connected to AWS: the load balancer puts it last.
func (e *event) remote(s source, h http.Header) string {
	ip := ""
	if s == functionURL {
		ip = e.RequestContext.HTTP.SourceIP
	} else if f := h.Values("X-Forwarded-For"); len(f) > 0 {
		all := strings.Split(f[len(f)-1], ",")
		ip = textproto.TrimString(all[len(all)-1])
	}
	return net.JoinHostPort(ip, "0")
}

// healthCheck reports whether the load balancer itself asks: unlike every client's request, its own has no X-Forwarded-For.
func healthCheck(r *http.Request, s source) bool {
	return s != functionURL && strings.HasPrefix(r.UserAgent(), "ELB-HealthChecker/") && r.Header.Get("X-Forwarded-For") == ""
}
