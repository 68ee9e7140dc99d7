// Package page embeds the built web page and serves it from memory, compressed, with the headers that browsers need to trust it.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// dist is what `make page` builds; a fresh clone has it empty, so that `go vet ./...` works without Node.js.
//
//go:embed all:dist placeholder.html
var files embed.FS

// policy allows nothing from elsewhere and nothing inline, but for requests to the given origins. 'self' covers sockets of the page's
// own host.
func policy(connect []string) string {
	p := "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	if len(connect) > 0 {
		p += "; connect-src 'self' " + strings.Join(connect, " ")
	}
	return p
}

// minCompress is the smallest file, in bytes, that is worth a second copy.
const minCompress = 1 << 10

// file is one file in its encodings, read-only after New.
type file struct {
	contentType string
	cache       string
	plain       variant
	gzip        variant
	brotli      variant
}

type variant struct {
	body []byte
	etag string
}

// Handler serves the page. It is safe for concurrent use.
type Handler struct {
	files  map[string]file // by URL path
	https  bool
	policy string
}

// New reads and compresses what is embedded. scheme is the one that browsers use, http or https; connect are origins that the page's
// scripts may send requests to, beside its own.
func New(scheme string, connect []string) (*Handler, error) {
	dist, err := fs.Sub(files, "dist")
	if err != nil {
		return nil, fmt.Errorf("read the embedded page: %w", err)
	}
	return newHandler(dist, scheme, connect)
}

func newHandler(dist fs.FS, scheme string, connect []string) (*Handler, error) {
	h := &Handler{files: make(map[string]file), https: scheme == "https", policy: policy(connect)}
	err := fs.WalkDir(dist, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path.Base(name), ".") || strings.HasSuffix(name, ".br") || strings.HasSuffix(name, ".gz") {
			return err
		}
		f, err := load(dist, name)
		h.files["/"+name] = f
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the embedded page: %w", err)
	}
	index, built := h.files["/index.html"]
	if !built {
		if index, err = load(files, "placeholder.html"); err != nil {
			return nil, fmt.Errorf("read the placeholder page: %w", err)
		}
		h.files["/index.html"] = index
	}
	h.files["/"] = index
	return h, nil
}

func load(dist fs.FS, name string) (file, error) {
	body, err := fs.ReadFile(dist, name)
	if err != nil {
		return file{}, err
	}
	f := file{contentType: contentType(name), cache: "no-cache", plain: newVariant(body, "")}
	if strings.HasPrefix(name, "assets/") {
		f.cache = "public, max-age=31536000, immutable" // the name holds a hash of the content
	}
	if br, err := fs.ReadFile(dist, name+".br"); err == nil {
		f.brotli = newVariant(br, "-br")
	}
	if compressible(f.contentType) && len(body) >= minCompress {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			return file{}, err
		}
		if _, err := z.Write(body); err != nil {
			return file{}, err
		}
		if err := z.Close(); err != nil {
			return file{}, err
		}
		f.gzip = newVariant(b.Bytes(), "-gz")
	}
	return f, nil
}

func newVariant(body []byte, suffix string) variant {
	sum := sha256.Sum256(body)
	return variant{body: body, etag: `"` + hex.EncodeToString(sum[:12]) + suffix + `"`}
}

// contentType doesn't trust the machine's own table for what the page consists of.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".json", ".map":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".woff2":
		return "font/woff2"
	default:
		if t := mime.TypeByExtension(ext); t != "" {
			return t
		}
		return "application/octet-stream"
	}
}

func compressible(contentType string) bool {
	return strings.HasPrefix(contentType, "text/") || strings.Contains(contentType, "json") || strings.Contains(contentType, "svg")
}

// ServeHTTP implements http.Handler: 404 for what is not part of the page, 405 for anything but GET and HEAD.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", h.policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=()")
	if h.https {
		header.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	f, found := h.files[r.URL.Path]
	if !found {
		header.Set("Cache-Control", "no-store") // a rolling deploy may bring the asset a second later
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	v, encoding := f.pick(r.Header.Get("Accept-Encoding"))
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", f.cache)
	header.Set("ETag", v.etag)
	if f.gzip.body != nil || f.brotli.body != nil {
		header.Set("Vary", "Accept-Encoding")
	}
	if matches(r.Header.Get("If-None-Match"), v.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if encoding != "" {
		header.Set("Content-Encoding", encoding)
	}
	header.Set("Content-Length", strconv.Itoa(len(v.body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(v.body) // a client that has gone is nobody's error
	}
}

func (f file) pick(accept string) (variant, string) {
	switch {
	case f.brotli.body != nil && accepts(accept, "br"):
		return f.brotli, "br"
	case f.gzip.body != nil && accepts(accept, "gzip"):
		return f.gzip, "gzip"
	}
	return f.plain, ""
}

// accepts reads an Accept-Encoding header; an encoding with q=0 is refused.
func accepts(header, encoding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), encoding) {
			continue
		}
		q, given := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !given || err != nil || weight > 0
	}
	return false
}

func matches(header, etag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == etag || part == "*" {
			return true
		}
	}
	return false
}
