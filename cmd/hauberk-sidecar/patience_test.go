package main

import (
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
)

// TestPatience: in a mesh clients are not waited for as long as they like; a bootstrap alone
// has nothing of itself, as in Envoy.
func TestPatience(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want hcm.Patience
	}{
		{[]string{"--bootstrap", "/b"}, hcm.Patience{}},
		{[]string{"--state-dir", "/x"}, hcm.Patience{Handshake: 5 * time.Second, FirstByte: 10 * time.Second, FirstByteOfStrangers: true, BodyRate: 100, BodyRateOfStrangers: true}},
		{[]string{"--state-dir", "/x", "--bootstrap", "/b"}, hcm.Patience{Handshake: 5 * time.Second, FirstByte: 10 * time.Second, FirstByteOfStrangers: true, BodyRate: 100, BodyRateOfStrangers: true}},
		{[]string{"--state-dir", "/x", "--first-byte-timeout", "off", "--least-body-rate", "off"}, hcm.Patience{Handshake: 5 * time.Second}},
		{[]string{"--state-dir", "/x", "--first-byte-timeout", "3s", "--least-body-rate", "1000"}, hcm.Patience{Handshake: 5 * time.Second, FirstByte: 3 * time.Second, BodyRate: 1000}},
		{[]string{"--bootstrap", "/b", "--first-byte-timeout", "3s", "--least-body-rate", "1000"}, hcm.Patience{FirstByte: 3 * time.Second, BodyRate: 1000}},
	} {
		o, err := parse(tc.args, none)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := o.patience(); err != nil || got != tc.want {
			t.Errorf("%q: %+v, %v", tc.args, got, err)
		}
	}
	for _, args := range [][]string{
		{"--first-byte-timeout", "10"}, {"--first-byte-timeout", "0s"}, {"--first-byte-timeout", "-1s"}, {"--first-byte-timeout", ""},
		{"--least-body-rate", "0"}, {"--least-body-rate", "-1"}, {"--least-body-rate", "100B"}, {"--least-body-rate", "1000000001"}, {"--least-body-rate", ""},
	} {
		o, err := parse(args, none)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := o.patience(); err == nil {
			t.Errorf("%q is %+v", args, p)
		}
	}
}
