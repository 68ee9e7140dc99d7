package session

import (
	"errors"
	"html/template"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// LinkPath is where links are opened; the code follows.
const LinkPath = "/api/session/link/"

// revokedUntil is how long a signed-out session must be remembered: as long as any cookie of it could still be good.
func (s *Service) revokedUntil(c token.Claims) time.Time {
	if extends(c) { // another tab may have been given a newer cookie
		return s.now().Add(limit.SessionTTL)
	}
	return c.Expires
}

// registerLink adds the link's own paths. They are no huma operations: messengers append query parameters to links, which huma refuses.
func (s *Service) registerLink(a *api.API) {
	code := &huma.Param{Name: "code", In: "path", Required: true, Schema: &huma.Schema{Type: "string"}}
	describe := func(method, id, summary, description string) {
		a.OpenAPI().AddOperation(&huma.Operation{OperationID: id, Method: method, Path: LinkPath + "{code}", Tags: []string{tag}, Summary: summary,
			Description: description, Parameters: []*huma.Param{code}, Responses: map[string]*huma.Response{
				"200": {Description: "A page with a button, for link previews and prefetches. The link stays good."},
				"303": {Description: "Signed in; the session cookie is set. Location is the page."},
				"410": {Description: "The link was used (link-used), or has expired or never was (link-expired). A page for browsers, " +
					"a problem document otherwise."},
				"503": {Description: "The link could not be checked and is still good. Try again."}}})
	}
	describe(http.MethodGet, "open-link", "Open a one-time link",
		"Signs this browser in as the link's user. A link works once. HEAD, prefetches and known link previewers never use it up.")
	describe(http.MethodPost, "use-link", "Use a one-time link, whoever asks", "What the button on the page does.")
	a.Handle("GET "+LinkPath+"{code}", http.HandlerFunc(s.openLink))
	a.Handle("POST "+LinkPath+"{code}", http.HandlerFunc(s.useLink))
}

// previewers fetch links that people send each other. Whoever is taken for one by mistake gets a page with a button.
var previewers = regexp.MustCompile(`(?i)bot\b|bot/|crawler|spider|preview|facebookexternalhit|facebot|whatsapp|telegram|slack|discord|skype|` +
	`linkedin|embedly|pinterest|vkshare|signal/|iframely|mattermost|teams/|outlook|safelinks|barracuda|mimecast|proofpoint|google-safety|headlinepreview`)

// opened reports whether a person opens the link in a browser, or a program means to use it, rather than looks at it in advance.
func opened(r *http.Request) bool {
	if r.Method == http.MethodHead {
		return false
	}
	for _, h := range []string{"Sec-Purpose", "Purpose", "X-Moz", "X-Purpose"} {
		if v := strings.ToLower(r.Header.Get(h)); strings.Contains(v, "prefetch") || strings.Contains(v, "prerender") || strings.Contains(v, "preview") {
			return false
		}
	}
	// A browser that says what it fetches must be navigating a page: not filling an image, a frame or a script's request.
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" && r.Header.Get("Sec-Fetch-Site") != "same-origin" {
		return false
	}
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest == "iframe" || dest == "frame" || dest == "embed" || dest == "object" {
		return false
	}
	return !previewers.MatchString(r.UserAgent())
}

func (s *Service) openLink(w http.ResponseWriter, r *http.Request) {
	if !opened(r) {
		s.page(w, r, http.StatusOK, pageData{Title: "Sign in to Tideline", Button: true,
			Text: "This link signs one device in, once. Open it on the device that you want to use."})
		return
	}
	s.useLink(w, r)
}

func (s *Service) useLink(w http.ResponseWriter, r *http.Request) {
	l, err := s.o.Store.TakeLink(r.Context(), linkID(r.PathValue("code")), s.now())
	switch {
	case errors.Is(err, ErrLinkUsed):
		s.gone(w, r, CodeLinkUsed, "This link has already been used.")
		return
	case errors.Is(err, ErrLinkExpired):
		s.gone(w, r, CodeLinkExpired, "This link has expired.")
		return
	case err != nil:
		s.log.ErrorContext(r.Context(), "link could not be taken", "error", err)
		api.WriteProblem(w, r, http.StatusServiceUnavailable, api.CodeUnavailable, "")
		return
	}
	cookie, err := s.cookie(s.start(l.User, l.Roles, l.Info, l.Until))
	if err != nil {
		// The link is used up: say what helps, which is a new one.
		s.log.ErrorContext(r.Context(), "session could not be signed", "error", err)
		api.WriteProblem(w, r, http.StatusServiceUnavailable, api.CodeUnavailable, "Make a new link and try again.")
		return
	}
	h := w.Header()
	h.Set("Set-Cookie", cookie)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
}

func (s *Service) gone(w http.ResponseWriter, r *http.Request, code api.Code, sentence string) {
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		s.page(w, r, http.StatusGone, pageData{Title: "This link can't be used", Home: true,
			Text: sentence + " Links work once and for a minute. Make a new one on the device that is signed in, with “Open on another device”."})
		return
	}
	api.WriteProblem(w, r, http.StatusGone, code, sentence+" Make a new one with POST /api/session/link.")
}

type pageData struct {
	Title, Text  string
	Button, Home bool
}

var pageTemplate = template.Must(template.New("link").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="color-scheme" content="light dark">
<title>{{.Title}}</title>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{if .Button}}<form method="post"><button>Sign in on this device</button></form>{{end}}
{{if .Home}}<p><a href="/">Go to Tideline</a></p>{{end}}
</html>
`))

func (s *Service) page(w http.ResponseWriter, r *http.Request, status int, d pageData) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Robots-Tag", "noindex")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if err := pageTemplate.Execute(w, d); err != nil {
		s.log.DebugContext(r.Context(), "page not sent", "error", err)
	}
}
