package listener

import (
	"encoding/hex"
	"testing"
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
