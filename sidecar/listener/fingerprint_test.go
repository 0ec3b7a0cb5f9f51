package listener

import (
	"encoding/hex"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// The fingerprints are those that Envoy makes of the same bytes (group hellos of the differential
// suite).
func TestFingerprints(t *testing.T) {
	const head = "03030000000000000000000000000000000000000000000000000000000000000000" // version and random
	for _, tc := range []struct{ name, message, ja3, ja4 string }{
		{"no extensions", head + "00" + "00041301c02f" + "0100", "6ac28f635e78b6e59638f7a1e035f458", "t12i020000_c1929292aa6b_000000000000"},
		{"GREASE", head + "00" + "00060a0a13011302" + "0100" + "0027" + "1a1a0000" + "0000000e000c000009612e6578616d706c65" + "002b0005042a2a0304" + "000a000400023a3a", "651531e0f873b35398be53795a619fd4", "t13d020300_62ed6f6ca7ad_b0ac53b37fa7"},
		{"protocols", head + "00" + "00021301" + "0100" + "0009" + "001000050003026832", "79bec9f8e9d974a2ec7ceb481134f481", "t12i0101h2_0f2cb44170f4_000000000000"},
		{"a protocol of other characters", head + "00" + "00021301" + "0100" + "0008" + "00100004000201ab", "79bec9f8e9d974a2ec7ceb481134f481", "t12i0101ab_0f2cb44170f4_000000000000"},
	} {
		b, err := hex.DecodeString(tc.message)
		if err != nil {
			t.Fatal(tc.name, err)
		}
		n := len(b)
		record := append([]byte{22, 3, 1, byte((n + 4) >> 8), byte(n + 4), 1, 0, byte(n >> 8), byte(n)}, b...)
		if _, err := parseClientHello(record); err != nil {
			t.Fatal(tc.name, err)
		}
		o, ok := offerOf(record)
		if !ok || o.ja3() != tc.ja3 || o.ja4() != tc.ja4 {
			t.Errorf("%s: %q, %q", tc.name, o.ja3(), o.ja4())
		}
	}
}

// helloOf is a ClientHello with as many ciphers and extensions, all different.
func helloOf(ciphers, extensions int) []byte {
	pair := func(n int) []byte { return []byte{byte(n >> 8), byte(n)} }
	b := append(make([]byte, 34), 0)
	b[0], b[1] = 3, 3
	b = append(b, pair(2*ciphers)...)
	for i := range ciphers {
		b = append(b, pair(i*7919)...)
	}
	b = append(append(b, 1, 0), pair(4*extensions)...)
	for i := range extensions {
		b = append(append(b, pair(i+100)...), 0, 0)
	}
	n := len(b)
	return append([]byte{22, 3, 1, byte((n + 4) >> 8), byte(n + 4), 1, 0, byte(n >> 8), byte(n)}, b...)
}

// TestFingerprintsCost: nothing is made that no log shows, and a long message costs no more pieces
// of memory than a short one, by about.
func TestFingerprintsCost(t *testing.T) {
	a, both, long := &arrival{}, &Filter{JA3: true, JA4: true}, helloOf(5000, 1400)
	if _, err := parseClientHello(long); err != nil {
		t.Fatal(err)
	}
	if telemetry.Wanted()&telemetry.WantFingerprints == 0 {
		if a.fingerprint(both, long); a.noted != nil {
			t.Error("fingerprints are made that no log shows")
		}
	}
	if _, err := telemetry.ParseFormat("%TLS_JA3_FINGERPRINT%"); err != nil {
		t.Fatal(err)
	}
	if a.fingerprint(both, long); a.noted == nil || a.noted.JA3.String() == "" || a.noted.JA4.String() == "" {
		t.Fatal("fingerprints that a log shows are not made")
	}
	const most = 50
	if n := testing.AllocsPerRun(20, func() { a.fingerprint(both, long) }); n > most {
		t.Errorf("%v allocations", n)
	}
}
