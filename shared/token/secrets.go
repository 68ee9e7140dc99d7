package token

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Secrets signs with the first HS256 secret and verifies with all. It is safe for concurrent use.
type Secrets struct {
	list     *secretList
	audience string
	now      func() time.Time
}

// NewSecrets needs at least one secret, each of at least MinSecretBytes. Its audience is Audience; see For.
func NewSecrets(secrets []string, now func() time.Time) (*Secrets, error) {
	keys, err := newSecretKeys(secrets)
	if err != nil {
		return nil, err
	}
	l := &secretList{}
	l.keys.Store(keys)
	return newSecrets(l, now), nil
}

// ParseSecrets reads the setting TOKEN_SECRETS: secrets separated by commas, the first signs; or @/path/of/a/file that has them,
// separated by commas or line ends. The file is looked at again at most every SecretsReread, while tokens are used; a file that can't be
// used then is reported to complain (may be nil) and the secrets read before stay.
func ParseSecrets(setting string, now func() time.Time, complain func(error)) (*Secrets, error) {
	path, isFile := strings.CutPrefix(strings.TrimSpace(setting), "@")
	if !isFile {
		return NewSecrets(splitSecrets(setting), now)
	}
	l := &secretList{path: path, complain: complain}
	if err := l.read(); err != nil {
		return nil, err
	}
	s := newSecrets(l, now)
	l.lookedAt = s.now()
	return s, nil
}

// SecretsReread is the shortest interval between two looks at the file of secrets.
const SecretsReread = 10 * time.Second

func newSecrets(l *secretList, now func() time.Time) *Secrets {
	if now == nil {
		now = time.Now
	}
	return &Secrets{list: l, audience: Audience, now: now}
}

// For has the same secrets for another audience.
func (s *Secrets) For(audience string) *Secrets {
	return &Secrets{list: s.list, audience: audience, now: s.now}
}

// Sign implements Signer.
func (s *Secrets) Sign(c Claims) (string, error) {
	keys := s.list.current(s.now())
	t, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c.wire(s.audience, s.now())).SignedString(keys.all[0])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return t, nil
}

// Verify implements Verifier.
func (s *Secrets) Verify(_ context.Context, raw string) (Claims, error) {
	keys := s.list.current(s.now())
	if c, ok := keys.ours(raw, s.audience, s.now()); ok {
		return c, nil
	}
	return parse(raw, s.audience, []string{"HS256"}, s.now, func(*jwt.Token) (any, error) {
		return jwt.VerificationKeySet{Keys: keys.all}, nil
	})
}

// secretList is what all audiences of one setting share.
type secretList struct {
	keys     atomic.Pointer[secretKeys]
	path     string // empty: never read again
	complain func(error)

	mu       sync.Mutex // one reader of the file at a time; others go on with what they have
	lookedAt time.Time
	text     string
}

func (l *secretList) current(now time.Time) *secretKeys {
	if l.path != "" && l.mu.TryLock() {
		if now.Sub(l.lookedAt) >= SecretsReread {
			l.lookedAt = now
			if err := l.read(); err != nil && l.complain != nil {
				l.complain(err)
			}
		}
		l.mu.Unlock()
	}
	return l.keys.Load()
}

// read loads the file; the caller holds mu or is the only one.
func (l *secretList) read() error {
	b, err := os.ReadFile(l.path)
	if err != nil {
		return fmt.Errorf("token secrets: %w", err)
	}
	if string(b) == l.text {
		return nil
	}
	keys, err := newSecretKeys(splitSecrets(string(b)))
	if err != nil {
		return fmt.Errorf("token secrets in %s: %w", l.path, err)
	}
	l.text = string(b)
	l.keys.Store(keys)
	return nil
}

func splitSecrets(s string) []string {
	var out []string
	for _, part := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// secretKeys are the secrets in the forms in which they are used.
type secretKeys struct {
	all  []jwt.VerificationKey // each a []byte
	macs []*sync.Pool          // of hash.Hash, HMAC-SHA256 with each
}

func newSecretKeys(secrets []string) (*secretKeys, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no token secret")
	}
	keys := &secretKeys{}
	for i, s := range secrets {
		if len(s) < MinSecretBytes {
			return nil, fmt.Errorf("token secret %d has %d bytes, at least %d are needed", i+1, len(s), MinSecretBytes)
		}
		key := []byte(s)
		keys.all = append(keys.all, key)
		keys.macs = append(keys.macs, &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }})
	}
	return keys, nil
}
