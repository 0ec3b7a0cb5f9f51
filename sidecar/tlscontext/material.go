package tlscontext

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
)

// maxFile bounds what is read of a file.
const maxFile = 4 << 20

// material is what the sources of a Common hold at one moment.
type material struct {
	certificates []tls.Certificate
	anchors      []*x509.Certificate // from the configuration
	roots        *x509.CertPool      // all anchors
	ends         *x509.CertPool      // those that a chain may end with
	between      []*x509.Certificate // the others, which lead to those or to nothing
	trust        map[string]*bundle  // by trust domain, where each has its own
	crls         []*revocations
	validation   *Validation // by which peers are verified, with what was discovered
}

func (m *material) own() []*handshake.Own {
	out := make([]*handshake.Own, len(m.certificates))
	for i := range m.certificates {
		out[i] = handshake.OwnOf(m.certificates[i].Leaf)
	}
	return out
}

// load reads everything, and fails where anything cannot be used.
func load(c *Common) (*material, error) {
	m := &material{}
	for i := range c.Certificates {
		cert, err := c.Certificates[i].load()
		if err != nil {
			return nil, err
		}
		m.certificates = append(m.certificates, *cert)
	}
	v := c.Validation
	if v == nil {
		return m, nil
	}
	var err error
	switch {
	case !v.CA.Empty():
		if m.anchors, m.crls, err = v.CA.authorities(); err != nil {
			return nil, err
		}
		m.roots = poolOf(m.anchors)
	case v.SystemRoots:
		if m.roots, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("the host's root certificates: %w", err)
		}
	case len(v.TrustDomains) > 0:
		m.trust = map[string]*bundle{}
		for _, d := range v.TrustDomains {
			b, anchors, err := d.load()
			if err != nil {
				return nil, fmt.Errorf("trust domain %q: %w", d.Name, err)
			}
			m.trust[d.Name] = b
			m.anchors = append(m.anchors, anchors...)
		}
		m.roots = poolOf(m.anchors)
	}
	if !v.CRL.Empty() {
		lists, err := v.CRL.revocations()
		if err != nil {
			return nil, err
		}
		m.crls = append(m.crls, lists...)
	}
	m.ends = m.roots
	if len(m.crls) > 0 && !v.LeafCRLOnly && m.trust == nil && !v.CA.Empty() {
		// Whether an anchor is revoked that another has signed tells that one's list, and that one alone
		// can vouch for the list: as in Envoy the chain goes on to it, or is none.
		m.ends, m.between = split(m.anchors)
	}
	return m, nil
}

// split parts roots, which their own keys have signed, from what others have.
func split(certificates []*x509.Certificate) (roots *x509.CertPool, others []*x509.Certificate) {
	roots = x509.NewCertPool()
	for _, c := range certificates {
		if isRoot(c) {
			roots.AddCert(c)
		} else {
			others = append(others, c)
		}
	}
	return roots, others
}

// bundle is a trust domain's. As in Envoy its roots alone are anchors; what others signed
// leads to one of them or to nothing. Its revocation lists are asked of its own peers alone.
type bundle struct {
	roots   *x509.CertPool
	between []*x509.Certificate
	crls    []*revocations
}

// load returns the bundle, and the certificates in it. One that could vouch for nobody is
// refused here, where the last good one stays, and not with each of the domain's peers.
func (d *TrustDomain) load() (*bundle, []*x509.Certificate, error) {
	certificates, crls, err := d.Bundle.authorities()
	if err != nil {
		return nil, nil, err
	}
	out := &bundle{crls: crls}
	out.roots, out.between = split(certificates)
	if len(out.between) == len(certificates) {
		return nil, nil, fmt.Errorf("%s holds no root: a certificate that its own key has signed", d.Bundle.name())
	}
	return out, certificates, nil
}

// isRoot tells whether a certificate is self-signed (RFC 5280 3.2): its own key has signed it.
// That its two names are equal anybody may write; they may be encoded in two ways and
// be one (RFC 5280 7.1).
func isRoot(c *x509.Certificate) bool {
	subject, issuer := peercert.DistinguishedName(c.RawSubject), peercert.DistinguishedName(c.RawIssuer)
	same := bytes.Equal(c.RawSubject, c.RawIssuer) || subject != "" && strings.EqualFold(subject, issuer)
	return same && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func poolOf(anchors []*x509.Certificate) *x509.CertPool {
	out := x509.NewCertPool()
	for _, c := range anchors {
		out.AddCert(c)
	}
	return out
}

// name of a source in messages.
func (s Source) name() string {
	if s.File != "" {
		return s.File
	}
	return "inline data"
}

func (s Source) read() ([]byte, error) {
	if s.File == "" {
		return []byte(s.Inline), nil
	}
	return ReadFile(s.File)
}

// ReadFile reads a file of certificates, keys or secrets, of 4 MiB at most. It waits for
// nobody: whoever looks at files holds locks meanwhile, and a pipe may have no writer.
func ReadFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, fmt.Errorf("%s is no regular file", path))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return b, err
}

func (c *Certificate) load() (*tls.Certificate, error) {
	chain, err := c.Chain.certificates()
	if err != nil {
		return nil, err
	}
	b, err := c.Key.read()
	if err != nil {
		return nil, err
	}
	key, err := privateKey(c.Key.name(), b)
	if err != nil {
		return nil, err
	}
	type comparable interface{ Equal(crypto.PublicKey) bool }
	if pub, ok := chain[0].PublicKey.(comparable); !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("%s is not the key of the certificate in %s", c.Key.name(), c.Chain.name())
	}
	out := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		out.Certificate = append(out.Certificate, cert.Raw)
	}
	return out, nil
}

// certificates reads a chain, which is not asked for revocation lists.
func (s Source) certificates() ([]*x509.Certificate, error) {
	data, err := s.read()
	if err != nil {
		return nil, err
	}
	return s.certificatesIn(data)
}

// authorities reads anchors, and the revocation lists that are beside them: as in Envoy they
// are enforced as those of crl are. Both are of one look at the file.
func (s Source) authorities() ([]*x509.Certificate, []*revocations, error) {
	data, err := s.read()
	if err != nil {
		return nil, nil, err
	}
	certificates, err := s.certificatesIn(data)
	if err != nil {
		return nil, nil, err
	}
	lists, err := s.revocationsIn(data)
	return certificates, lists, err
}

// revocations reads revocation lists, of which there must be one.
func (s Source) revocations() ([]*revocations, error) {
	data, err := s.read()
	if err != nil {
		return nil, err
	}
	out, err := s.revocationsIn(data)
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("%s holds no PEM revocation list", s.name())
	}
	return out, err
}

// certificatesIn reads PEM, and refuses what is damaged where a decoder would pass
// over it: a file half written.
func (s Source) certificatesIn(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	err := s.blocks(data, "CERTIFICATE", "certificate", func(der []byte) error {
		c, err := x509.ParseCertificate(der)
		out = append(out, c)
		return err
	})
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("%s holds no PEM certificate", s.name())
	}
	return out, err
}

func (s Source) revocationsIn(data []byte) ([]*revocations, error) {
	var out []*revocations
	err := s.blocks(data, "X509 CRL", "revocation list", func(der []byte) error {
		l, err := x509.ParseRevocationList(der)
		if err == nil {
			out = append(out, compileRevocations(l))
		}
		return err
	})
	return out, err
}

// blocks gives the PEM blocks of a kind to each. Others are passed over: the key, where all is
// in one file.
func (s Source) blocks(data []byte, kind, what string, each func(der []byte) error) error {
	found := 0
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != kind {
			continue
		}
		found++
		if err := each(block.Bytes); err != nil {
			return fmt.Errorf("%s: %s %d: %w", s.name(), what, found, err)
		}
	}
	if n := bytes.Count(data, []byte("-----BEGIN "+kind+"-----")); n != found {
		return fmt.Errorf("%s: of its %d PEM %ss %d are damaged", s.name(), n, what, n-found)
	}
	return nil
}

// privateKey does not wrap causes: they could quote the key.
func privateKey(name string, data []byte) (crypto.Signer, error) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%s holds no PEM private key", name)
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		var key any
		err := errors.New("its type is not read")
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("%s: the private key, of PEM type %q, cannot be read: convert it with `openssl pkcs8 -topk8 -nocrypt`", name, block.Type)
		}
		return signer, nil
	}
}

// stat is what a change of a file changes. The inode counts, because files are
// replaced by rename, within the clock's resolution if need be.
type stat struct {
	modified time.Time
	size     int64
	info     os.FileInfo
	young    bool
}

// resolution is of the times of the coarsest file systems. A file that was written to within it before it
// was looked at may be written to again and look no different.
const resolution = 2 * time.Second

// same tells whether a file looks as it did when it was read, which was then.
func (s stat) same(then stat) bool {
	return !then.young && s.size == then.size && s.modified.Equal(then.modified) && (s.info == nil) == (then.info == nil) &&
		(s.info == nil || os.SameFile(s.info, then.info))
}

// files of a Common, each once.
func (c *Common) files() []string {
	var out []string
	seen := map[string]bool{}
	add := func(s Source) {
		if s.File != "" && !seen[s.File] {
			seen[s.File] = true
			out = append(out, s.File)
		}
	}
	for _, cert := range c.Certificates {
		add(cert.Chain)
		add(cert.Key)
	}
	if v := c.Validation; v != nil {
		add(v.CA)
		for _, d := range v.TrustDomains {
			add(d.Bundle)
		}
		add(v.CRL)
	}
	return out
}

// look stats files; one that cannot be found is a change too.
func look(files []string) []stat {
	out := make([]stat, len(files))
	for i, f := range files {
		if info, err := os.Stat(f); err == nil {
			age := time.Since(info.ModTime())
			out[i] = stat{info.ModTime(), info.Size(), info, age >= 0 && age < resolution}
		}
	}
	return out
}
