package telemetry

import (
	"crypto/x509"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

func TestOwnCertificates(t *testing.T) {
	own := &handshake.Own{Certificate: peercert.Of([]*x509.Certificate{{DNSNames: []string{"a.test", "b.test"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1).To4()}, EmailAddresses: []string{"x@y"}}})}
	issued := peercert.Of([]*x509.Certificate{{}}).WithIssuer(&x509.Certificate{Raw: []byte{1}, SerialNumber: big.NewInt(0xab)})
	f, err := ParseFormat("%DOWNSTREAM_LOCAL_DNS_SAN% %DOWNSTREAM_LOCAL_IP_SAN% %DOWNSTREAM_LOCAL_EMAIL_SAN% %DOWNSTREAM_LOCAL_OTHERNAME_SAN% " +
		"%UPSTREAM_LOCAL_DNS_SAN% %UPSTREAM_LOCAL_IP_SAN% %DOWNSTREAM_PEER_ISSUER_SERIAL% %UPSTREAM_CONNECTION_ID% %DOWNSTREAM_HANDSHAKE_DURATION% %TLS_JA3_FINGERPRINT% %TLS_JA4_FINGERPRINT%")
	if err != nil {
		t.Fatal(err)
	}
	if all := WantConnectionIDs | WantHandshakes | WantCertificates | WantFingerprints; Wanted()&all != all {
		t.Error("nobody measures what the format shows")
	}
	start := time.Unix(100, 0)
	all := &Record{Start: start, Own: own, UpstreamOwn: own, Peer: issued, UpstreamNoted: &stream.Noted{ID: 7}, Noted: &stream.Noted{Secured: start.Add(12 * time.Millisecond), JA3: stream.FingerprintOf("j3"), JA4: stream.FingerprintOf("j4")}}
	late := &Record{Start: start.Add(time.Second), Noted: all.Noted}
	for _, tc := range []struct {
		r    *Record
		want string
	}{
		{all, "a.test,b.test 10.0.0.1 x@y - a.test,b.test 10.0.0.1 ab 7 12 j3 j4"},
		{late, "- - - - - - - 0 -988 j3 j4"},
		{&Record{UpstreamLocal: &net.TCPAddr{}}, "- - - - - - - - - - -"}, // made before a format asked
		{&Record{}, "- - - - - - - 0 - - -"},
	} {
		if got := string(f.Append(nil, tc.r)); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

// TestWantsOfConnections: what one operator shows is not measured for another.
func TestWantsOfConnections(t *testing.T) {
	for name, want := range map[string]Want{
		"UPSTREAM_CONNECTION_ID": WantConnectionIDs, "DOWNSTREAM_HANDSHAKE_DURATION": WantHandshakes,
		"TLS_JA3_FINGERPRINT": WantFingerprints, "TLS_JA4_FINGERPRINT": WantFingerprints,
	} {
		at := slices.IndexFunc(operators, func(d operatorDef) bool { return d.Name == name })
		if got := operators[at].wants; got != want {
			t.Errorf("%s wants %b, not %b", name, got, want)
		}
	}
}
