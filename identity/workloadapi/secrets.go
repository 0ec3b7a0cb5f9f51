package workloadapi

import (
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// The names of secrets are those of SPIRE's agent. Besides these three, a SPIFFE
// ID names that SVID, and a trust domain's ID its bundle.
const (
	// DefaultSecret is the caller's SVID, if it is clear which.
	DefaultSecret = "default"
	// RootSecret is the bundle of the caller's own trust domain.
	RootSecret = "ROOTCA"
	// AllSecret is every bundle, each for its own trust domain, for Envoy's
	// SPIFFE validator.
	AllSecret = "ALL"
)

// secretType is the only type of resource on this socket's SDS.
const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// spiffeValidator is the name of Envoy's extension.
const spiffeValidator = "envoy.tls.cert_validator.spiffe"

// secret is one resource as it is now.
type secret struct {
	name    string
	version string
	about   string // for the log: nothing that is secret
	any     *anypb.Any
}

// errPendingSecret: the caller may have it, and it is not there yet.
var errPendingSecret = errors.New("not there yet")

// secret makes the resource with a name. The error says why this caller does not
// get it; it is errPendingSecret where waiting helps.
func (i *identities) secret(name string) (secret, error) {
	switch name {
	case DefaultSecret:
		id, err := i.defaultID()
		if err != nil {
			return secret{}, err
		}
		return i.certificate(name, id)
	case RootSecret:
		return i.bundle(name, i.granted[0].id.TrustDomain().Name())
	case AllSecret:
		return i.allBundles(name)
	}
	id, err := spiffeid.FromString(name)
	switch {
	case err != nil:
		return secret{}, fmt.Errorf("%q is no name of a secret here: ask for %s, %s, %s, a SPIFFE ID or spiffe://TRUST-DOMAIN", short(name), DefaultSecret, RootSecret, AllSecret)
	case id.Path() == "":
		return i.bundle(name, id.TrustDomain().Name())
	}
	return i.certificate(name, id)
}

// defaultID is the identity that is meant where none is named. Where several are
// possible, to guess would let one service speak as another.
func (i *identities) defaultID() (spiffeid.ID, error) {
	first := i.granted[0]
	if len(i.granted) > 1 && !first.isDefault {
		return spiffeid.ID{}, fmt.Errorf("%q could be %s or %s: ask by SPIFFE ID, or mark one entry with default: true", DefaultSecret, first.id, i.granted[1].id)
	}
	return first.id, nil
}

func (i *identities) may(id spiffeid.ID) bool {
	for _, g := range i.granted {
		if g.id == id {
			return true
		}
	}
	return false
}

// certificate is an SVID with its key.
func (i *identities) certificate(name string, id spiffeid.ID) (secret, error) {
	if !i.may(id) {
		return secret{}, fmt.Errorf("no entry of this host gives %s to this caller", short(id.String()))
	}
	o, ok := i.find(id)
	if !ok {
		return secret{}, errPendingSecret
	}
	key, err := o.pkcs8()
	if err != nil {
		return secret{}, err
	}
	var chain []byte
	for _, c := range o.Chain {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	// The version is the certificate's: the key belongs to it, and no trace of
	// a key shows in what is logged and compared.
	version := (&identities{own: []own{o}}).fingerprint()
	return pack(name, version, fmt.Sprintf("%s serial %x", id, o.Leaf().SerialNumber), &tlsv3.Secret{
		Name: name,
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(chain),
			PrivateKey:       inline(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		}},
	})
}

// bundle is the anchors of a trust domain. One without anchors is never sent:
// Envoy would take an empty context as leave to trust anybody.
func (i *identities) bundle(name, td string) (secret, error) {
	b := i.bundles[td]
	if b == nil {
		if td == i.granted[0].id.TrustDomain().Name() {
			return secret{}, errPendingSecret
		}
		return secret{}, fmt.Errorf("this host trusts no anchor of %s", short(td))
	}
	version := (&identities{bundles: map[string]*svid.Anchors{td: b}}).fingerprint()
	return pack(name, version, "bundle of "+td, &tlsv3.Secret{
		Name: name,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(anchorsPEM(b))}},
	})
}

// allBundles keeps each anchor to its own trust domain.
func (i *identities) allBundles(name string) (secret, error) {
	if len(i.bundles) == 0 {
		return secret{}, errPendingSecret
	}
	conf := &tlsv3.SPIFFECertValidatorConfig{}
	for _, td := range i.trustDomains() {
		conf.TrustDomains = append(conf.TrustDomains, &tlsv3.SPIFFECertValidatorConfig_TrustDomain{
			Name: td, TrustBundle: inline(anchorsPEM(i.bundles[td])),
		})
	}
	any, err := marshal(conf)
	if err != nil {
		return secret{}, err
	}
	version := (&identities{bundles: i.bundles}).fingerprint()
	return pack(name, version, "all bundles", &tlsv3.Secret{
		Name: name,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			CustomValidatorConfig: &corev3.TypedExtensionConfig{Name: spiffeValidator, TypedConfig: any},
		}},
	})
}

func pack(name string, version fingerprint, about string, s *tlsv3.Secret) (secret, error) {
	any, err := marshal(s)
	if err != nil {
		return secret{}, err
	}
	return secret{name: name, version: hex.EncodeToString(version[:8]), about: about, any: any}, nil
}

func marshal(m proto.Message) (*anypb.Any, error) {
	any := &anypb.Any{}
	if err := anypb.MarshalFrom(any, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("%s cannot be encoded", m.ProtoReflect().Descriptor().FullName())
	}
	return any, nil
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func anchorsPEM(b *svid.Anchors) []byte {
	var out []byte
	for _, c := range b.Certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// everything are the names that a subscription without names is for.
func (i *identities) everything() []string {
	var out []string
	for _, o := range i.own {
		out = append(out, o.ID.String())
	}
	for _, td := range i.trustDomains() {
		out = append(out, tdID(td))
	}
	return out
}

// short bounds what a caller's own words add to an error: it travels in trailers,
// which clients bound.
func short(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}
