package serverapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MinKeyBytes is the shortest key that is taken.
	MinKeyBytes = 32
	// MaxKeys is how many keys may be valid together: the newest, and those that are on their way out.
	MaxKeys = 8
	// KeysReread is the shortest interval between two looks at the file of keys.
	KeysReread = 10 * time.Second
)

// Keys are the secrets that callers show. It is safe for concurrent use.
type Keys struct {
	digests atomic.Pointer[[][sha256.Size]byte]

	path     string // empty: never read again
	complain func(error)
	now      func() time.Time

	mu       sync.Mutex // one reader of the file at a time; others go on with what they have
	lookedAt time.Time
	text     string
}

// ParseKeys takes keys separated by commas or line ends, the newest first; all are accepted. Each has MinKeyBytes or more, without spaces.
func ParseKeys(list string) (*Keys, error) {
	k := &Keys{}
	return k, k.set(list)
}

// OpenKeys reads a file of keys, as ParseKeys takes them. It is looked at again at most every KeysReread, while the API is used; one that can't be
// used then is reported to complain, and the keys read before stay.
func OpenKeys(path string, complain func(error)) (*Keys, error) {
	k := &Keys{path: path, complain: complain, now: time.Now}
	if err := k.read(); err != nil {
		return nil, err
	}
	k.lookedAt = k.now()
	return k, nil
}

// Accept reports whether a key is one of them, in a time that doesn't tell how far it is from one.
func (k *Keys) Accept(given string) bool {
	if k.path != "" && k.mu.TryLock() {
		if now := k.now(); now.Sub(k.lookedAt) >= KeysReread {
			k.lookedAt = now
			if err := k.read(); err != nil {
				k.complain(err)
			}
		}
		k.mu.Unlock()
	}
	digest, found := sha256.Sum256([]byte(given)), 0
	for _, d := range *k.digests.Load() {
		found |= subtle.ConstantTimeCompare(digest[:], d[:])
	}
	return found == 1
}

// read loads the file; the caller holds mu or is the only one.
func (k *Keys) read() error {
	b, err := os.ReadFile(k.path)
	if err != nil {
		return fmt.Errorf("keys of the server API: %w", err)
	}
	if string(b) == k.text {
		return nil
	}
	if err := k.set(string(b)); err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.text = string(b)
	return nil
}

func (k *Keys) set(list string) error {
	var digests [][sha256.Size]byte
	for _, key := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		key = strings.TrimSpace(key)
		switch {
		case key == "":
			continue
		case len(key) < MinKeyBytes:
			return fmt.Errorf("key %d of the server API has %d bytes, at least %d are needed", len(digests)+1, len(key), MinKeyBytes)
		case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
			return fmt.Errorf("key %d of the server API has a byte that a header may not have", len(digests)+1)
		}
		digests = append(digests, sha256.Sum256([]byte(key)))
	}
	switch {
	case len(digests) == 0:
		return errors.New("no key of the server API")
	case len(digests) > MaxKeys:
		return fmt.Errorf("%d keys of the server API, at most %d", len(digests), MaxKeys)
	}
	k.digests.Store(&digests)
	return nil
}
