package hcm

import (
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestClientCertJSON: each part is a member of its own, whatever the certificate says.
func TestClientCertJSON(t *testing.T) {
	cert := certificate(t, webID)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	leaf.DNSNames = []string{"a.example", "evil\"}]\\\u00e9\n\x01\xff"}
	info := &stream.Info{TLS: true, OwnID: apiID, PeerID: webID, PeerCertHash: "ab", PeerChain: []*x509.Certificate{leaf, leaf}}
	c := ClientCert{Cert: true, Chain: true, Subject: true, URI: true, DNS: true, Issuer: true, JSON: true}
	text := c.element(info)
	var got struct {
		By                          []string
		Hash, Cert, Subject, Issuer string
		Chain, URI, DNS             []string
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if len(got.By) != 1 || got.By[0] != apiID || got.Hash != "ab" || !strings.HasPrefix(got.Cert, "-----BEGIN CERTIFICATE-----\n") || len(got.Chain) != 2 ||
		got.URI[0] != webID || got.DNS[0] != "a.example" || got.DNS[1] != "evil\"}]\\\u00e9\n\x01\ufffd" {
		t.Errorf("%+v", got)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("not for a header: %q", text)
	}
	if got := (ClientCert{URI: true, DNS: true, JSON: true}).element(&stream.Info{PeerCertHash: "ab"}); got != `{"hash":"ab"}` {
		t.Error(got)
	}
}

// TestClientCertJSONAppended: to a list that is one, to text in the format that came, and to nothing that
// could make our element a part of the client's, or hide it from a reader of what is configured.
func TestClientCertJSONAppended(t *testing.T) {
	const own, text = `{"hash":"ab"}`, "Hash=ab"
	for _, tc := range []struct{ configured, was, want string }{
		{"JSON", "", "[" + own + "]"},
		{"JSON", `[{"by":"x"}]`, `[{"by":"x"},` + own + "]"},
		{"TEXT", `[{"by":"x"}]`, text},
		{"TEXT", ` ["",",By=spiffe://a;Hash=x;URI=spiffe://admin,"] `, text},
		{"TEXT", "[By=x", "[By=x," + text},
		{"JSON", `By="x`, "[" + own + "]"},
		{"TEXT", `By="x`, text},
		{"JSON", "By=x", "By=x," + text},
		{"JSON", "[]", "[" + own + "]"},
		{"JSON", "[ ]", "[" + own + "]"},
		{"JSON", `[{"by":"]`, "[" + own + "]"},
		{"JSON", `[{"by":"x"},{"hash":["]`, "[" + own + "]"},
		{"TEXT", `[/*]`, text},
		{"JSON", `[1],[2]`, "[" + own + "]"},
		{"TEXT", "", text},
	} {
		cfg := &Config{ForwardClientCert: AppendForward, ClientCert: ClientCert{JSON: tc.configured == "JSON"}}
		d := downstream.New(downstream.Facts{Place: &downstream.Place{}}, nil)
		d.Info = &stream.Info{TLS: true, PeerCertHash: "ab"}
		x := &exchange{m: &Manager{cfg: cfg}, d: d, req: &message.Request{}, policy: &policy{cfg: cfg}}
		x.xfcc = clientCertElement(cfg, d.Info)
		if tc.was != "" {
			x.req.Fields.Add("X-Forwarded-Client-Cert", tc.was)
		}
		x.forwardClientCert()
		if got, _ := x.req.Fields.Joined("x-forwarded-client-cert"); got != tc.want {
			t.Errorf("%s behind %s: %s, want %s", tc.configured, tc.was, got, tc.want)
		}
	}
}
