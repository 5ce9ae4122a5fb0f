// Certificates: an authority that lives as long as it takes to sign one for each
// host and one for whoever asks them, so that libvirt and migrations can be
// encrypted.

package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs certificates. Its key is never written down.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// writeCertificates makes the lab's authority, and a certificate and key for each
// host and for the clients outside of them.
func (l *Lab) writeCertificates() error {
	ca, err := newAuthority()
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	if err := ca.certify(l.pki(), "client", nil); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	for _, h := range l.Hosts {
		if err := ca.certify(filepath.Join(h.Dir, "pki"), h.Name, net.ParseIP(h.Addr)); err != nil {
			return fmt.Errorf("%s: certificates: %w", h.Name, err)
		}
	}
	return nil
}

// pki is the folder that libvirt's clients are sent to for their certificate. On
// each host its own is mounted there: one URI is good everywhere.
func (l *Lab) pki() string { return filepath.Join(l.Dir, "pki") }

func newAuthority() (*authority, error) {
	a := &authority{}
	var err error
	a.key, a.cert, err = a.issue(&x509.Certificate{
		Subject:  pkix.Name{CommonName: "vmdisk lab"},
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	})
	return a, err
}

// issue makes a key and has it certified, by itself if there is no authority yet.
func (a *authority) issue(template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-time.Hour) // clocks step back
	template.NotAfter = time.Now().AddDate(10, 0, 0)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return key, cert, err
}

// certify fills a folder with all that a name needs as a server and as a client of
// libvirt and of QEMU, each of which has names of its own for the files.
func (a *authority) certify(dir, name string, addr net.IP) error {
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: name},
		DNSNames: []string{name},
		// libvirt and QEMU want the second too, which this kind of key has no use for.
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if addr != nil {
		template.IPAddresses = []net.IP{addr}
	}
	key, cert, err := a.issue(template)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range []struct {
		names []string
		kind  string
		der   []byte
		mode  os.FileMode
	}{
		{[]string{"cacert.pem", "ca-cert.pem"}, "CERTIFICATE", a.cert.Raw, 0o644},
		{[]string{"servercert.pem", "clientcert.pem", "server-cert.pem", "client-cert.pem"}, "CERTIFICATE", cert.Raw, 0o644},
		{[]string{"serverkey.pem", "clientkey.pem", "server-key.pem", "client-key.pem"}, "PRIVATE KEY", der, 0o600},
	} {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		for _, name := range f.names {
			if err := os.WriteFile(filepath.Join(dir, name), text, f.mode); err != nil {
				return err
			}
		}
	}
	return nil
}
