package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
)

// intruder joins the mesh as the service "intruder" and returns a client
// configuration with its SVID.
func (d *demo) intruder(ctx context.Context) (cfg *tls.Config, id string, done func(), err error) {
	token, err := d.mint(ctx, "intruder", "intruder")
	if err != nil {
		return nil, "", nil, err
	}
	a, err := agent.Build(agent.Config{StateDir: d.path("intruder"), Token: token})
	if err != nil {
		return nil, "", nil, err
	}
	runCtx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.Run(runCtx) }()
	done = func() {
		cancel()
		<-ended
		_ = a.Close()
	}
	td, err := spiffe.TrustDomain(trustDomain)
	if err != nil {
		done()
		return nil, "", nil, err
	}
	self, err := spiffe.ForService(td, "default", "dc1", "intruder")
	if err != nil {
		done()
		return nil, "", nil, err
	}
	wait, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	for a.Snapshot().SVIDs[self.String()] == nil {
		changed := a.Changed()
		if a.Snapshot().SVIDs[self.String()] != nil {
			break
		}
		select {
		case <-changed:
		case <-wait.Done():
			done()
			return nil, "", nil, errors.New("the intruder got no SVID")
		}
	}
	server, err := spiffe.ForService(td, "default", "dc1", "api")
	if err != nil {
		done()
		return nil, "", nil, err
	}
	cfg, err = tlsconf.Client(tlsconf.ClientParams{
		Source:     a,
		ID:         self.String(),
		ServerName: apiSNI(),
		Authorize: func(peer spiffeid.ID) error {
			if peer != server {
				return fmt.Errorf("expected %s, met %s", server, peer)
			}
			return nil
		},
	})
	if err != nil {
		done()
		return nil, "", nil, err
	}
	return cfg, self.String(), done, nil
}

// strangerTLS makes a certificate that claims to be web, signed by a CA of its
// own.
func strangerTLS() (*tls.Config, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/ns/default/dc/dc1/svc/web"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ServerName:             apiSNI(),
		InsecureSkipVerify:     true, // the stranger trusts anyone; what counts is whether it is trusted
		SessionTicketsDisabled: true,
		MinVersion:             tls.VersionTLS13,
	}, nil
}
