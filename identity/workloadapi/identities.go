package workloadapi

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// identities are what one caller gets at one moment.
type identities struct {
	granted []granted // never empty; held or not
	own     []own
	pending []string // entitled to, but not held by the agent
	bundles map[string]*svid.Anchors
}

// own is an SVID as the caller gets it.
type own struct {
	*svid.SVID
	hint      string
	isDefault bool
}

// identitiesOf answers for the caller in a world. The error is a gRPC status:
// PermissionDenied for a caller who is entitled to nothing, Unavailable where
// nothing that it is entitled to is held at the moment.
func (s *Server) identitiesOf(c *Caller, w *world) (*identities, error) {
	facts, err := c.facts(w.needsUnit)
	if err != nil {
		return nil, status.Errorf(codes.PermissionDenied, "no identity issued: %s: %v", c, err)
	}
	granted := w.granted(facts)
	if len(granted) == 0 {
		switch {
		case w.why != "":
			return nil, status.Error(codes.PermissionDenied, "no identity issued: "+w.why)
		case facts.Unit != "":
			return nil, status.Errorf(codes.PermissionDenied, "no identity issued: no entry of this host is for %s unit=%s", c, facts.Unit)
		}
		return nil, status.Errorf(codes.PermissionDenied, "no identity issued: no entry of this host is for %s", c)
	}
	out := &identities{granted: granted, bundles: map[string]*svid.Anchors{}}
	for name, b := range w.snapshot.Bundles {
		// One without an anchor verifies nothing and is not handed out.
		if len(b.Certificates) > 0 {
			out.bundles[name] = b
		}
	}
	hints := map[string]bool{}
	for _, g := range granted {
		v := w.snapshot.SVIDs[g.id.String()]
		switch {
		case v == nil:
			out.pending = append(out.pending, fmt.Sprintf("the agent holds no SVID of %s yet", g.id))
		case !time.Now().Before(v.Leaf().NotAfter):
			out.pending = append(out.pending, fmt.Sprintf("the SVID of %s expired at %s", g.id, v.Leaf().NotAfter.UTC().Format(time.RFC3339)))
		case out.bundles[g.id.TrustDomain().Name()] == nil:
			out.pending = append(out.pending, fmt.Sprintf("the trust bundle of %s is empty", g.id.TrustDomain()))
		default:
			// A hint is unique in one answer; the first has it.
			if hints[g.hint] {
				g.hint = ""
			}
			hints[g.hint] = g.hint != ""
			out.own = append(out.own, own{v, g.hint, g.isDefault})
		}
	}
	return out, nil
}

// errPending is what is answered where the caller is entitled to something, and
// nothing of it is held.
func (i *identities) errPending() error {
	return status.Error(codes.Unavailable, strings.Join(i.pending, "; "))
}

// find returns the SVID with the ID.
func (i *identities) find(id spiffeid.ID) (own, bool) {
	n := slices.IndexFunc(i.own, func(o own) bool { return o.ID == id })
	if n < 0 {
		return own{}, false
	}
	return i.own[n], true
}

// trustDomains are those of the bundles, sorted.
func (i *identities) trustDomains() []string { return slices.Sorted(maps.Keys(i.bundles)) }

// fingerprint tells two answers apart. It covers certificates and not keys: each
// key belongs to its certificate.
type fingerprint [sha256.Size]byte

func (i *identities) fingerprint() fingerprint {
	h := sha256.New()
	for _, o := range i.own {
		writeCerts(h, o.ID.String()+"\x00"+o.hint, o.Chain)
	}
	for _, td := range i.trustDomains() {
		writeCerts(h, td, i.bundles[td].Certificates)
	}
	return fingerprint(h.Sum(nil))
}

// writeCerts writes names and certificates so that no two lists read alike.
func writeCerts(w io.Writer, name string, certs []*x509.Certificate) {
	put := func(b []byte) {
		_ = binary.Write(w, binary.BigEndian, uint64(len(b)))
		_, _ = w.Write(b)
	}
	put([]byte(name))
	_ = binary.Write(w, binary.BigEndian, uint64(len(certs)))
	for _, c := range certs {
		put(c.Raw)
	}
}

// der concatenates certificates as the Workload API wants them.
func der(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, c.Raw...)
	}
	return out
}

// pkcs8 encodes the SVID's key, unencrypted. The encoder's own error is not
// passed on: it may speak of the key.
func (o own) pkcs8() ([]byte, error) {
	b, err := x509.MarshalPKCS8PrivateKey(o.Key)
	if err != nil {
		return nil, errors.New("the key of " + o.ID.String() + " cannot be handed out: it does not leave where it is kept")
	}
	return b, nil
}

// describe names SVIDs for the log, by what is public.
func (i *identities) describe() []string {
	var out []string
	for _, o := range i.own {
		out = append(out, fmt.Sprintf("%s serial %x", o.ID, o.Leaf().SerialNumber))
	}
	return out
}

// tdID is a trust domain as SPIFFE ID.
func tdID(name string) string { return "spiffe://" + name }
