package lambdahttp

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ResponseBytes is the most that a response may have as the JSON that Lambda hands to the load balancer, in bytes. Past it the load
// balancer would answer 502; the caller gets the problem response-too-large instead.
const ResponseBytes = 1_000_000

// response is what a handler writes into. One event owns it.
type response struct {
	header http.Header // the handler's
	sent   http.Header // as they were when the status was written
	status int
	body   bytes.Buffer
}

func newResponse() *response { return &response{header: http.Header{}} }

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Informational statuses can't be sent.
func (w *response) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status, w.sent = status, maps.Clone(w.header)
}

// Write implements http.ResponseWriter. What could never be sent is not kept.
func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.body.Len() <= ResponseBytes {
		w.body.Write(b)
	}
	return len(b), nil
}

// wire is the response of all three sources; each leaves out what is not its own.
type wire struct {
	StatusCode        int                 `json:"statusCode"`
	StatusDescription string              `json:"statusDescription,omitempty"`
	Headers           map[string]string   `json:"headers,omitempty"`
	MultiValueHeaders map[string][]string `json:"multiValueHeaders,omitempty"`
	Cookies           []string            `json:"cookies,omitempty"`
	Body              string              `json:"body"`
	IsBase64Encoded   bool                `json:"isBase64Encoded"`
}

// encode makes the response for its source. ok is false when it is too large.
func (w *response) encode(s source) (payload []byte, ok bool) {
	w.WriteHeader(http.StatusOK)
	if w.body.Len() > ResponseBytes {
		return nil, false
	}
	out := wire{StatusCode: w.status}
	if w.status != http.StatusNoContent && w.status != http.StatusNotModified {
		out.Body = w.body.String()
		if w.sent.Get("Content-Type") == "" && w.body.Len() > 0 {
			w.sent.Set("Content-Type", http.DetectContentType(w.body.Bytes()))
		}
	}
	// JSON can carry only valid UTF-8; anything else, and what is compressed, goes as base64.
	if !utf8.ValidString(out.Body) || w.sent.Get("Content-Encoding") != "" {
		out.Body, out.IsBase64Encoded = base64.StdEncoding.EncodeToString(w.body.Bytes()), true
	}
	for _, hop := range []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Trailer", "Upgrade"} {
		w.sent.Del(hop)
	}
	switch s {
	case albMulti:
		out.StatusDescription = describe(w.status)
		out.MultiValueHeaders = w.sent
	case functionURL:
		out.Cookies = w.sent.Values("Set-Cookie")
		w.sent.Del("Set-Cookie")
		out.Headers = joined(w.sent)
	default:
		out.StatusDescription = describe(w.status)
		out.Headers = joined(w.sent)
	}
	payload = marshal(out)
	return payload, len(payload) <= ResponseBytes
}

// joined has one value per header. Set-Cookie can't be joined: without multi-value headers only the last of several is sent.
func joined(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		out[name] = strings.Join(values, ", ")
		if name == "Set-Cookie" {
			out[name] = values[len(values)-1]
		}
	}
	return out
}

func describe(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// marshal does not escape HTML: a page would grow sixfold.
func marshal(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // strings, numbers and maps of them: can't fail
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}
