package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tideline/shared/token"
)

// Limits of fetching an issuer's keys.
const (
	// FetchTimeout bounds everything that is fetched from one issuer in one run.
	FetchTimeout = 8 * time.Second
	// FetchBytes is the largest document that is read.
	FetchBytes = 512 << 10
	// FreshMin and FreshMax bound how long a set is kept without asking again, whatever Cache-Control says.
	FreshMin = 5 * time.Minute
	FreshMax = time.Hour
	// KeepFor is how long a set is used that can't be fetched any more. Then the issuer's tokens are refused as unavailable.
	KeepFor = 7 * 24 * time.Hour
	// redirectsMax is the most redirects that are followed, https only.
	redirectsMax = 3
)

// Fetcher keeps the key sets of configured issuers. It is safe for concurrent use.
type Fetcher struct {
	store   token.Store
	issuers []token.Foreign
	client  *http.Client
	now     func() time.Time
	log     *slog.Logger
}

// NewFetcher keeps the sets of issuers in store. Transport is nil for the usual one, now for the real clock.
func NewFetcher(store token.Store, issuers []token.Foreign, transport http.RoundTripper, now func() time.Time, log *slog.Logger) *Fetcher {
	if now == nil {
		now = time.Now
	}
	client := &http.Client{Transport: transport, Timeout: FetchTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > redirectsMax {
			return errors.New("too many redirects")
		}
		return allowed(r.URL.String())
	}}
	return &Fetcher{store: store, issuers: issuers, client: client, now: now, log: log}
}

// Fetch asks every issuer whose set is no longer fresh. An issuer that fails keeps its set and does not disturb the others; the error
// names all that failed.
func (f *Fetcher) Fetch(ctx context.Context) error {
	have, err := f.store.ReadIssuers(ctx)
	if err != nil {
		return err
	}
	old := map[string]token.IssuerKeys{}
	for _, k := range have {
		old[k.Issuer] = k
	}
	var errs []error
	for _, is := range f.issuers {
		k := old[is.Issuer]
		delete(old, is.Issuer)
		if f.now().Before(k.Fresh) {
			continue
		}
		if err := f.one(ctx, is, k); err != nil {
			errs = append(errs, fmt.Errorf("keys of %s: %w", is.Issuer, err))
			if k.Set != nil && !f.now().Before(k.Fetched.Add(KeepFor)) {
				f.log.Error("key set given up", "issuer", is.Issuer, "fetched", k.Fetched)
				errs = append(errs, f.store.RemoveIssuer(ctx, is.Issuer))
			}
		}
	}
	for issuer := range old { // no longer configured
		f.log.Info("issuer removed", "issuer", issuer)
		errs = append(errs, f.store.RemoveIssuer(ctx, issuer))
	}
	return errors.Join(errs...)
}

func (f *Fetcher) one(ctx context.Context, is token.Foreign, k token.IssuerKeys) error {
	ctx, cancel := context.WithTimeout(ctx, FetchTimeout)
	defer cancel()
	where, err := f.where(ctx, is)
	if err != nil {
		return err
	}
	res, body, err := f.get(ctx, where, k.ETag)
	if err != nil {
		return err
	}
	now := f.now()
	k.Issuer, k.Fetched, k.Fresh = is.Issuer, now, now.Add(freshFor(res.Header.Get("Cache-Control")))
	if res.StatusCode == http.StatusOK {
		set, err := token.Usable(body)
		if err != nil {
			return err
		}
		k.Set, k.ETag = set, clipTag(res.Header.Get("ETag"))
	}
	return f.store.PutIssuer(ctx, k)
}

// where is the key set's URL: configured, or from the issuer's discovery document.
func (f *Fetcher) where(ctx context.Context, is token.Foreign) (string, error) {
	if is.JWKS != "" {
		return is.JWKS, nil
	}
	_, body, err := f.get(ctx, strings.TrimSuffix(is.Issuer, "/")+"/.well-known/openid-configuration", "")
	if err != nil {
		return "", fmt.Errorf("discovery: %w", err)
	}
	var d struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return "", fmt.Errorf("discovery: %w", err)
	}
	if d.Issuer != is.Issuer {
		return "", fmt.Errorf("discovery: the document is of issuer %q", d.Issuer)
	}
	if err := allowed(d.JWKS); err != nil {
		return "", fmt.Errorf("discovery: jwks_uri: %w", err)
	}
	return d.JWKS, nil
}

// get answers 200 with its body, or 304 if etag still holds.
func (f *Fetcher) get(ctx context.Context, where, etag string) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Accept", "application/json")
	if etag != "" {
		r.Header.Set("If-None-Match", etag)
	}
	res, err := f.client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotModified && etag != "" {
		return res, nil, nil
	}
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, FetchBytes+1))
	if err != nil {
		return nil, nil, err
	}
	if len(body) > FetchBytes {
		return nil, nil, fmt.Errorf("more than %d bytes", FetchBytes)
	}
	return res, body, nil
}

// allowed is https, or http on the loopback address for development.
func allowed(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is no URL", raw)
	}
	if u.Scheme == "https" || (u.Scheme == "http" && (u.Hostname() == "127.0.0.1" || u.Hostname() == "localhost")) {
		return nil
	}
	return fmt.Errorf("%q is not https", raw)
}

func freshFor(cacheControl string) time.Duration {
	for part := range strings.SplitSeq(cacheControl, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(name, "max-age") {
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				return min(max(time.Duration(n)*time.Second, FreshMin), FreshMax)
			}
		}
	}
	return FreshMin
}

// clipTag drops an ETag that is too long to keep.
func clipTag(tag string) string {
	if len(tag) > 256 {
		return ""
	}
	return tag
}
