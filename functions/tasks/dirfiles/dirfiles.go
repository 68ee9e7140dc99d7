// Package dirfiles keeps the files of tasks in a folder and serves signed links to them that expire: what a bucket does in AWS.
package dirfiles

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tideline/functions/api"
	"tideline/functions/tasks"
)

// Path is where the links lead; Dir serves everything below it.
const Path = "/api/files/"

// MinSecretBytes is the shortest secret that links are signed with.
const MinSecretBytes = 32

// Codes of this package's refusals.
const (
	CodeLink api.Code = "link-invalid" // 403: not signed by us, for another method, or expired
	CodeSize api.Code = "wrong-size"   // 400: not as many bytes as the link is for
)

// Dir implements tasks.Files and http.Handler. It is safe for concurrent use. A file appears whole or not at all.
type Dir struct {
	root   string
	secret []byte
	now    func() time.Time
}

// New keeps files below root, which is created if need be. Nil now means time.Now.
func New(root string, secret []byte, now func() time.Time) (*Dir, error) {
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("files: the secret has %d bytes, at least %d are needed", len(secret), MinSecretBytes)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	if now == nil {
		now = time.Now
	}
	return &Dir{root: root, secret: secret, now: now}, nil
}

// file is where a key's content is, or an error for a key that leads elsewhere.
func (d *Dir) file(key string) (string, error) {
	if key == "" || path.Clean("/"+key) != "/"+key || !filepath.IsLocal(filepath.FromSlash(key)) {
		return "", fmt.Errorf("file %q: %w", key, tasks.ErrNoFile)
	}
	return filepath.Join(d.root, filepath.FromSlash(key)), nil
}

// Put implements tasks.Files.
func (d *Dir) Put(ctx context.Context, key, _ string, size int64, content io.ReadSeeker) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.write(key, size, content)
}

// write puts the file in its place after all of it is there.
func (d *Dir) write(key string, size int64, content io.Reader) error {
	name, err := d.file(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("%w: %w", tasks.ErrFilesUnavailable, err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return fmt.Errorf("%w: %w", tasks.ErrFilesUnavailable, err)
	}
	defer os.Remove(f.Name()) // there is none once it has its name
	n, err := io.Copy(f, io.LimitReader(content, size+1))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes or more, %d announced", n, size)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write file %s: %w", key, err)
	}
	return nil
}

// Get implements tasks.Files.
func (d *Dir) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := d.file(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("file %s: %w", key, tasks.ErrNoFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tasks.ErrFilesUnavailable, err)
	}
	return f, nil
}

// UploadLink implements tasks.Files.
func (d *Dir) UploadLink(_ context.Context, key, contentType string, size int64, ttl time.Duration) (tasks.Link, error) {
	q := url.Values{"bytes": {strconv.FormatInt(size, 10)}}
	l := d.link(http.MethodPut, key, q, ttl)
	l.Headers = map[string]string{"Content-Type": contentType}
	return l, nil
}

// DownloadLink implements tasks.Files.
func (d *Dir) DownloadLink(_ context.Context, key, contentType, name string, ttl time.Duration) (tasks.Link, error) {
	return d.link(http.MethodGet, key, url.Values{"type": {contentType}, "name": {name}}, ttl), nil
}

func (d *Dir) link(method, key string, q url.Values, ttl time.Duration) tasks.Link {
	expires := d.now().Add(ttl).UTC().Truncate(time.Second)
	q.Set("expires", strconv.FormatInt(expires.Unix(), 10))
	q.Set("signature", d.sign(method, key, q))
	return tasks.Link{URL: Path + key + "?" + q.Encode(), Method: method, Expires: expires}
}

// sign covers the method, the key and every parameter but the signature.
func (d *Dir) sign(method, key string, q url.Values) string {
	signed := url.Values{}
	for name, values := range q {
		if name != "signature" {
			signed[name] = values
		}
	}
	mac := hmac.New(sha256.New, d.secret)
	mac.Write([]byte(method + "\n" + key + "\n" + signed.Encode()))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// ServeHTTP answers GET and PUT of signed links.
func (d *Dir) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	key := strings.TrimPrefix(r.URL.Path, Path)
	q := r.URL.Query()
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	expires, err := strconv.ParseInt(q.Get("expires"), 10, 64)
	if err != nil || !hmac.Equal([]byte(q.Get("signature")), []byte(d.sign(method, key, q))) || !d.now().Before(time.Unix(expires, 0)) {
		api.WriteProblem(w, r, http.StatusForbidden, CodeLink, "This link is not valid, or not any more. Ask for a new one.")
		return
	}
	switch method {
	case http.MethodGet:
		d.serve(w, r, key, q)
	case http.MethodPut:
		d.receive(w, r, key, q)
	default: // no link is signed for it
		api.WriteProblem(w, r, http.StatusMethodNotAllowed, api.CodeMethodNotAllowed, "")
	}
}

func (d *Dir) serve(w http.ResponseWriter, r *http.Request, key string, q url.Values) {
	f, err := d.Get(r.Context(), key)
	if err != nil {
		api.WriteProblem(w, r, http.StatusNotFound, api.CodeNotFound, "The file is gone.")
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", q.Get("type"))
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": q.Get("name")}))
	file, ok := f.(*os.File)
	if !ok {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, file)
}

func (d *Dir) receive(w http.ResponseWriter, r *http.Request, key string, q url.Values) {
	size, err := strconv.ParseInt(q.Get("bytes"), 10, 64)
	if err != nil || r.ContentLength != size {
		api.WriteProblem(w, r, http.StatusBadRequest, CodeSize, "Send a Content-Length of exactly "+clip(q.Get("bytes"))+" bytes.")
		return
	}
	if err := d.write(key, size, r.Body); err != nil {
		api.WriteProblem(w, r, http.StatusServiceUnavailable, api.CodeUnavailable, "")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func clip(s string) string { return s[:min(len(s), 20)] }

// Sweep deletes files that are older than the age, and what interrupted uploads left.
func (d *Dir) Sweep(ctx context.Context, age time.Duration) error {
	return filepath.WalkDir(d.root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.now().Sub(info.ModTime()) <= age {
			return nil
		}
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}
