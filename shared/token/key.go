package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"tideline/shared/limit"
)

// Rings. Each has keys of its own, so that a kind of token can't pass for another even if an audience check were forgotten.
const (
	RingAccess  = "access"
	RingSession = "session"
)

// Times of a key's life, in the order in which they must nest: ReloadTimeout < ReloadRetry < ReloadUnknown < ReloadEvery;
// ReloadEvery*5 < SignerStale < StaleAfter; StaleAfter + ClockSkew < Propagation < the shortest RotateEvery. TestKeyTimes holds this.
const (
	// ReloadEvery is the age at which verifiers and signers read the keys again, when they are used.
	ReloadEvery = time.Minute
	// ReloadUnknown is the shortest interval between two reads because of an unknown key id.
	ReloadUnknown = 30 * time.Second
	// ReloadTimeout bounds one read; ReloadRetry is the shortest interval between two that failed.
	ReloadTimeout = 2 * time.Second
	ReloadRetry   = 5 * time.Second
	// Propagation is how long a new key is published before it signs: every verifier has loaded it by then, or has not been able to
	// read for so long that it answers ErrUnavailable.
	Propagation = time.Hour
	// StaleAfter is how long verifiers go on with keys that they can't read again. Past it they answer ErrUnavailable: a key that was retired
	// meanwhile must not be accepted, and a new one not be refused.
	StaleAfter = 45 * time.Minute
	// SignerStale is how long a signer goes on with keys that it can't read again; then it answers ErrUnavailable.
	SignerStale = 15 * time.Minute
	// ClockSkew is how far the clocks of signers, verifiers and the rotation may be apart, put together.
	ClockSkew = time.Minute
)

// TokenLife is the longest life of a token that a ring signs.
func TokenLife(ring string) time.Duration {
	if ring == RingSession {
		return limit.SessionTTL
	}
	return limit.TokenTTL + limit.TokenJitter
}

// RotateEvery is how long one key of a ring signs.
func RotateEvery(ring string) time.Duration {
	if ring == RingSession {
		return 7 * 24 * time.Hour // its keys are kept for a session's life: some five of them
	}
	return 24 * time.Hour
}

// Key is the public half of a signing key, as verifiers read it.
type Key struct {
	ID   string          `json:"kid"`
	Ring string          `json:"ring"`
	JWK  json.RawMessage `json:"jwk"`
	// Created is when the key was published; it signs from SignFrom until its successor does.
	Created  time.Time `json:"created"`
	SignFrom time.Time `json:"signFrom"`
	// Retire is when the last token that it signed has expired: from then on it verifies nothing. Zero while it has no successor.
	Retire time.Time `json:"retire,omitzero"`
}

// PrivateKey is the other half.
type PrivateKey struct {
	ID       string          `json:"kid"`
	Ring     string          `json:"ring"`
	JWK      json.RawMessage `json:"jwk"`
	SignFrom time.Time       `json:"signFrom"`
}

// Published is everything that verifiers read, in one consistent read.
type Published struct {
	Keys []Key
	// Issuers are the JSON Web Key Sets of foreign issuers, as Usable left them, by issuer.
	Issuers map[string]json.RawMessage
}

// PublicSource is where verifiers read keys. Safe for concurrent use.
type PublicSource interface {
	Published(ctx context.Context) (Published, error)
}

// PrivateSource is where signers read keys. Safe for concurrent use.
type PrivateSource interface {
	PrivateKeys(ctx context.Context, ring string) ([]PrivateKey, error)
}

// NewKey makes an Ed25519 key that is published now and signs from signFrom.
func NewKey(ring string, now, signFrom time.Time) (Key, PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, PrivateKey{}, fmt.Errorf("make key: %w", err)
	}
	id := rand.Text()
	meta := jwkset.JWKMetadataOptions{ALG: jwkset.AlgEdDSA, KID: id, USE: jwkset.UseSig}
	encode := func(secret bool) (json.RawMessage, error) {
		k, err := jwkset.NewJWKFromKey(private, jwkset.JWKOptions{Marshal: jwkset.JWKMarshalOptions{Private: secret}, Metadata: meta})
		if err != nil {
			return nil, err
		}
		return json.Marshal(k.Marshal())
	}
	pub, err1 := encode(false)
	priv, err2 := encode(true)
	if err := errors.Join(err1, err2); err != nil {
		return Key{}, PrivateKey{}, fmt.Errorf("encode key: %w", err)
	}
	return Key{ID: id, Ring: ring, JWK: pub, Created: now, SignFrom: signFrom}, PrivateKey{ID: id, Ring: ring, JWK: priv, SignFrom: signFrom}, nil
}

func parseJWK(raw json.RawMessage, private bool) (jwkset.JWK, error) {
	return jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{Private: private}, jwkset.JWKValidateOptions{})
}

// MinRSABits is the smallest RSA key of an issuer that is used.
const MinRSABits = 2048

// verificationKey is one usable public key.
type verificationKey struct {
	key any
	alg string // "" when the key does not say
}

// publicKeys reads a JSON Web Key Set, leaving out what can't verify here: keys without an id, for encryption, symmetric, of other
// kinds, too small. A set with one strange key is still a set.
func publicKeys(set json.RawMessage) (map[string]verificationKey, []json.RawMessage, error) {
	var s struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(set, &s); err != nil {
		return nil, nil, fmt.Errorf("key set: %w", err)
	}
	keys := map[string]verificationKey{}
	var kept []json.RawMessage
	for _, raw := range s.Keys {
		k, err := parseJWK(raw, false)
		if err != nil {
			continue
		}
		m := k.Marshal()
		if m.KID == "" || (m.USE != "" && m.USE != jwkset.UseSig) || !usable(k.Key()) {
			continue
		}
		if _, twice := keys[m.KID]; twice {
			continue
		}
		// Only what verifying needs is kept: no certificates, nothing private.
		clean, err := json.Marshal(jwkset.JWKMarshal{KTY: m.KTY, USE: m.USE, ALG: m.ALG, KID: m.KID, CRV: m.CRV, X: m.X, Y: m.Y, N: m.N, E: m.E})
		if err != nil {
			continue
		}
		keys[m.KID] = verificationKey{key: k.Key(), alg: m.ALG.String()}
		kept = append(kept, clean)
	}
	return keys, kept, nil
}

func usable(key any) bool {
	switch k := key.(type) {
	case ed25519.PublicKey, *ecdsa.PublicKey:
		return true
	case *rsa.PublicKey:
		return k.N.BitLen() >= MinRSABits
	}
	return false
}

// Usable reduces a JSON Web Key Set to the keys that can verify here. ErrInvalid when none is left: such a set must not replace a good one.
func Usable(set json.RawMessage) (json.RawMessage, error) {
	_, kept, err := publicKeys(set)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("%w: no usable key in the set", ErrInvalid)
	}
	return json.Marshal(map[string]any{"keys": kept})
}

// pick finds a token's key by its header.
func pick(keys map[string]verificationKey, t *jwt.Token) (any, error) {
	kid, _ := t.Header["kid"].(string)
	k, ok := keys[kid]
	if !ok {
		return nil, errUnknownKey
	}
	if k.alg != "" && k.alg != t.Method.Alg() {
		return nil, fmt.Errorf("key is for %s", k.alg)
	}
	return k.key, nil
}

var errUnknownKey = errors.New("unknown key id")
