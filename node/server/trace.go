package server

import (
	"net/http"
	"strings"

	"tideline/shared/trace"
)

// traced puts requests of the server API under the trace that they came with, and opens a span for each where spans are recorded: what they publish
// carries it on.
func (n *Node) traced(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api" && !strings.HasPrefix(r.URL.Path, "/api/") {
			h.ServeHTTP(w, r)
			return
		}
		ctx, span := trace.Enter(trace.FromRequest(r.Context(), r.Header), n.tracing, trace.Server, "server API", "", "tideline.node", n.id, "url.path", r.URL.Path)
		defer span.End(nil)
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}
