package enginetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeCertificates makes an authority, a server's and a client's certificate: ca.pem, server.pem, server-key.pem, cert.pem, key.pem.
func writeCertificates(t testing.TB, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatalf("enginetest: %v", err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	key := newKey(t)
	write(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", issue(t, ca, ca, key, key))
	for i, c := range []struct{ cert, key, name string }{{"server.pem", "server-key.pem", "server"}, {"cert.pem", "key.pem", "client"}} {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(i) + 2), Subject: pkix.Name{CommonName: c.name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		k := newKey(t)
		write(t, filepath.Join(dir, c.cert), "CERTIFICATE", issue(t, leaf, ca, k, key))
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatalf("enginetest: %v", err)
		}
		write(t, filepath.Join(dir, c.key), "EC PRIVATE KEY", der)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("enginetest: %v", err)
	}
	return k
}

func issue(t testing.TB, c, by *x509.Certificate, k, with *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, &k.PublicKey, with)
	if err != nil {
		t.Fatalf("enginetest: %v", err)
	}
	return der
}

func write(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatalf("enginetest: %v", err)
	}
}
