package listener

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestProxyExtensions: extensions that are not whole are no header, of whatever family, and LOCAL has
// none that count.
func TestProxyExtensions(t *testing.T) {
	const (
		v4    = "0d0a0d0a000d0a515549540a2111"
		v6    = "0d0a0d0a000d0a515549540a2121"
		local = "0d0a0d0a000d0a515549540a2011"
		four  = "0102030405060708006f00de"
		six   = "20010db8000000000000000000000001" + "20010db8000000000000000000000002" + "006f00de"
	)
	for name, tc := range map[string]struct {
		header, want string
		err          error
	}{
		"IPv4":         {v4 + "0010" + four + "d0000161", "d0000161", nil},
		"IPv6":         {v6 + "0028" + six + "d0000161", "d0000161", nil},
		"none":         {v4 + "000c" + four, "", nil},
		"LOCAL":        {local + "0004" + "d0000161", "", nil},
		"LOCAL, short": {local + "0002" + "d000", "", nil},
		"no length":    {v4 + "000d" + four + "d0", "", errBadProxyHeader},
		"a long one":   {v4 + "0010" + four + "d0000261", "", errBadProxyHeader},
		"long of IPv6": {v6 + "0028" + six + "d0000261", "", errBadProxyHeader},
	} {
		b, err := hex.DecodeString(tc.header)
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseProxyHeader(b)
		if got := hex.EncodeToString([]byte(h.extensions)); got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestAnnounced: rules make metadata of extensions, and what a header before said stands.
func TestAnnounced(t *testing.T) {
	var none proxytlv.List
	f := &ProxyProtocol{
		Rules: []ProxyRule{
			{Type: 1, Namespace: "n", Key: "replaced"}, {Type: 1, Namespace: "n", Key: "a"},
			{Type: 2, Namespace: "n", Key: "b", Base64: true},
		},
		Passed: proxytlv.Choice{Types: "\x02"},
	}
	first := f.announced(nil, none.With(1, "x\xffé\xe2").With(1, "y").With(2, "\xff").With(3, "z"))
	both := f.announced(f.announced(nil, none.With(1, "1")), none.With(1, "2").With(2, "2"))
	for what, pair := range map[string][2]string{
		"text":              {metadataOf(first.Said(), "a"), "x!é!"},
		"base64":            {metadataOf(first.Said(), "b"), "/w=="},
		"the last rule":     {metadataOf(first.Said(), "replaced"), "(none)"},
		"passed":            {string(first.Passed().List()), string(none.With(2, "\xff"))},
		"the first header":  {metadataOf(both.Said(), "a"), "1"},
		"the second header": {metadataOf(both.Said(), "b"), "Mg=="},
		"passed of both":    {string(both.Passed().List()), ""},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}
	if f.announced(nil, "") != nothingAnnounced {
		t.Error("a header that says nothing more has something of its own")
	}
}

func metadataOf(m *telemetry.Metadata, key string) string {
	v, ok := m.Get("n", key)
	if !ok {
		return "(none)"
	}
	return v
}
