package record

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func bytesOf(t *testing.T, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors: the keys and a record of RFC 8448 3.
func TestVectors(t *testing.T) {
	for _, tc := range []struct{ secret, key, iv, record string }{
		{
			"9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
			"17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9",
			`17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4`,
		},
		{"a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643", "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984", ""},
	} {
		var p protection
		var traffic secret
		traffic.length = copy(traffic.bytes[:], bytesOf(t, tc.secret))
		if err := p.start(suites[0x1301], &traffic); err != nil {
			t.Fatal(err)
		}
		key, err := p.expand("key", 16)
		first := p // whose number is 0, so that its nonce is the IV
		if err != nil || !bytes.Equal(key, bytesOf(t, tc.key)) || !bytes.Equal(first.next(), bytesOf(t, tc.iv)) {
			t.Errorf("key %x, first nonce %x, %v", key, first.nonce, err)
		}
		if tc.record == "" {
			continue
		}
		var data []byte
		for i := range 50 {
			data = append(data, byte(i))
		}
		s := sealer{protection: p}
		if got := s.seal(make([]byte, 0, 200), typeData, data); !bytes.Equal(got, bytesOf(t, tc.record)) {
			t.Errorf("%x", got)
		}
	}
}

// TestSecrets: two lines of a key log are heard, others passed over, broken ones refused.
func TestSecrets(t *testing.T) {
	random, digits := strings.Repeat("ab", 32), strings.Repeat("cd", 48)
	s := &Secrets{}
	for _, line := range []string{
		"CLIENT_HANDSHAKE_TRAFFIC_SECRET " + random + " " + digits + "\n",
		"CLIENT_TRAFFIC_SECRET_0 " + random + " " + digits + "\n",
		"SERVER_TRAFFIC_SECRET_0 " + random + " " + digits[:64] + "\n",
	} {
		if n, err := s.Write([]byte(line)); n != len(line) || err != nil {
			t.Error(n, err)
		}
	}
	if s.client.length != 48 || s.server.length != 32 || s.client.bytes[47] != 0xcd {
		t.Error("not as long as they were logged")
	}
	for _, line := range []string{
		"CLIENT_TRAFFIC_SECRET_0 " + random + " " + digits + "\n", // twice
		"CLIENT_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0 " + random, "CLIENT_TRAFFIC_SECRET_0 " + random + " \n",
		"CLIENT_TRAFFIC_SECRET_0 " + random + " " + digits + "cd\n", "CLIENT_TRAFFIC_SECRET_0 " + random + " xy\n",
	} {
		if strings.Contains(line, "xy") || !strings.Contains(line, digits+"\n") {
			s.Forget()
		}
		if _, err := s.Write([]byte(line)); err == nil {
			t.Errorf("%q is understood", line)
		}
	}
	if s.Forget(); *s != (Secrets{}) {
		t.Error("not forgotten")
	}
}
