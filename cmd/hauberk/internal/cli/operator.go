package cli

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/files"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

// SVIDDirEnv names the directory with an operator's svid.pem, key.pem and
// bundle.pem, needed for an https address.
const SVIDDirEnv = "HAUBERK_SVID_DIR"

// OperatorTLS reads the operator's SVID and returns a configuration that talks
// to control planes of its trust domain, and to nothing else.
func OperatorTLS() (*tls.Config, error) {
	dir := os.Getenv(SVIDDirEnv)
	if dir == "" {
		return nil, errors.New("an https address needs an operator's SVID: set " + SVIDDirEnv + " to the directory with svid.pem, key.pem and bundle.pem")
	}
	chain := filepath.Join(dir, "svid.pem")
	td, err := trustDomainOf(chain)
	if err != nil {
		return nil, err
	}
	src, err := files.Open(files.Config{
		Pairs:   []files.Pair{{Chain: chain, Key: filepath.Join(dir, "key.pem")}},
		Bundles: map[string]string{td: filepath.Join(dir, "bundle.pem")},
	})
	if err != nil {
		return nil, err
	}
	return tlsconf.Client(tlsconf.ClientParams{
		Source: src,
		Authorize: func(peer spiffeid.ID) error {
			id, err := spiffe.Of(peer)
			if err != nil || id.Kind != spiffe.ControlPlane {
				return fmt.Errorf("%s is not a control plane", peer)
			}
			return nil
		},
	})
}

// trustDomainOf reads the trust domain from the first certificate of a file.
func trustDomainOf(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("operator's SVID: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return "", fmt.Errorf("operator's SVID: %s: no PEM block", file)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("operator's SVID: %s: %w", file, err)
	}
	id, err := verify.Leaf(c)
	if err != nil {
		return "", fmt.Errorf("operator's SVID: %s: %w", file, err)
	}
	return id.TrustDomain().Name(), nil
}
