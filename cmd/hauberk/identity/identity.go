// Package identity is `hauberk identity`: whose certificate is it, and would
// the mesh accept it.
package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

// Command returns `hauberk identity`.
func Command(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "identity", Short: "inspect identities"}
	cmd.AddCommand(show(env), fetch(env))
	return cmd
}

// Report is what show prints.
type Report struct {
	From      string    `json:"from"`
	SPIFFEID  string    `json:"spiffe_id,omitempty"`
	Serial    string    `json:"serial"`
	Key       string    `json:"key"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	TLS       string    `json:"tls,omitempty"`
	// Verdict is "valid", "invalid" or "unverified" (no bundle to verify with).
	Verdict string `json:"verdict"`
	Why     string `json:"why,omitempty"`
}

func show(env *cli.Env) *cobra.Command {
	var bundleFile, sni string
	cmd := &cobra.Command{
		Use:   "show ADDR|FILE",
		Short: "show and verify the identity behind an address or in a PEM file",
		Long: "Shows the SPIFFE identity that ADDR (host:port) presents, or that FILE (PEM) holds, and verifies it\n" +
			"against the mesh's trust bundle, asked of the control plane or read from --bundle.\n" +
			"Exit code 0 when it is valid, 1 when it is not, 2 when that could not be told.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rep, chain, err := load(cmd.Context(), args[0], sni)
			if err != nil {
				return err
			}
			judge(rep, chain, func() ([]byte, error) { return bundleJSON(cmd.Context(), env, bundleFile) })
			if err := env.Print(rep, rep.print); err != nil {
				return err
			}
			switch rep.Verdict {
			case "valid":
				return nil
			case "invalid":
				return &output.ExitError{Code: output.No}
			}
			return &output.ExitError{Code: output.Failed}
		},
	}
	cmd.Flags().StringVar(&bundleFile, "bundle", "", "trust bundle in SPIFFE's format (default: ask the control plane)")
	cmd.Flags().StringVar(&sni, "sni", "", "server name to send to ADDR, such as api.default.dc1.internal.TRUST-DOMAIN")
	return cmd
}

func load(ctx context.Context, what, sni string) (*Report, []*x509.Certificate, error) {
	if b, err := os.ReadFile(what); err == nil {
		chain, err := parsePEM(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", what, err)
		}
		return describe(what, chain), chain, nil
	} else if !strings.Contains(what, ":") {
		return nil, nil, err
	}
	chain, state, err := dial(ctx, what, sni)
	if err != nil {
		return nil, nil, err
	}
	rep := describe(what, chain)
	rep.TLS = fmt.Sprintf("%s, %s, %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), state.CurveID)
	return rep, chain, nil
}

// dial reads the certificates a server shows. In TLS 1.3 they come before the
// server asks for the client's, so no identity is needed to look.
func dial(ctx context.Context, addr, sni string) ([]*x509.Certificate, tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var state tls.ConnectionState
	cfg := &tls.Config{
		ServerName:             sni,
		InsecureSkipVerify:     true, // verified by the caller, against the mesh's bundle
		SessionTicketsDisabled: true,
		MinVersion:             tls.VersionTLS12,
		VerifyConnection: func(cs tls.ConnectionState) error {
			state = cs
			return nil
		},
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, state, err
	}
	defer raw.Close()
	if err := tls.Client(raw, cfg).HandshakeContext(ctx); err != nil && len(state.PeerCertificates) == 0 {
		hint := ""
		if sni == "" {
			hint = " (a sidecar picks the workload by server name: try --sni)"
		}
		var notTLS tls.RecordHeaderError
		if errors.As(err, &notTLS) {
			hint = " (it does not speak TLS)"
		}
		return nil, state, fmt.Errorf("%s: %w%s", addr, err, hint)
	}
	return state.PeerCertificates, state, nil
}

func parsePEM(b []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for {
		var block *pem.Block
		block, b = pem.Decode(b)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return chain, nil
}

func describe(from string, chain []*x509.Certificate) *Report {
	leaf := chain[0]
	rep := &Report{
		From:      from,
		Serial:    leaf.SerialNumber.Text(16),
		Key:       leaf.PublicKeyAlgorithm.String(),
		Issuer:    leaf.Issuer.String(),
		NotBefore: leaf.NotBefore,
		NotAfter:  leaf.NotAfter,
		Verdict:   "unverified",
	}
	if len(leaf.URIs) == 1 {
		rep.SPIFFEID = leaf.URIs[0].String()
	}
	return rep
}

func judge(rep *Report, chain []*x509.Certificate, bundle func() ([]byte, error)) {
	id, err := verify.Leaf(chain[0])
	if err != nil {
		rep.Verdict, rep.Why = "invalid", err.Error()
		return
	}
	doc, err := bundle()
	if err != nil {
		rep.Why = "no trust bundle: " + err.Error()
		return
	}
	td, err := bundleDomain(doc, id)
	if err != nil {
		rep.Why = err.Error()
		return
	}
	b, err := trust.ParseJWKS(td, doc)
	if err != nil {
		rep.Why = err.Error()
		return
	}
	if _, err := verify.Chain(td, b.Anchors(), chain, time.Now()); err != nil {
		rep.Verdict, rep.Why = "invalid", err.Error()
		return
	}
	rep.Verdict = "valid"
}

// bundleDomain: a SPIFFE bundle does not name its trust domain, but its signers
// carry it.
func bundleDomain(doc []byte, id spiffeid.ID) (spiffeid.TrustDomain, error) {
	var keys struct {
		Keys []struct {
			X5C [][]byte `json:"x5c"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(doc, &keys); err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust bundle: %w", err)
	}
	for _, k := range keys.Keys {
		if len(k.X5C) != 1 {
			continue
		}
		if c, err := x509.ParseCertificate(k.X5C[0]); err == nil && len(c.URIs) == 1 {
			if signer, err := spiffeid.FromURI(c.URIs[0]); err == nil {
				return signer.TrustDomain(), nil
			}
		}
	}
	return id.TrustDomain(), nil
}

func bundleJSON(ctx context.Context, env *cli.Env, file string) ([]byte, error) {
	if file != "" {
		return os.ReadFile(file)
	}
	c, err := env.Client()
	if err != nil {
		return nil, err
	}
	var info api.CA
	if err := c.Get(ctx, api.CAPath, &info); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(info.Bundle), nil
}

func (r *Report) print(w io.Writer) error {
	id := r.SPIFFEID
	if id == "" {
		id = "none"
	}
	fmt.Fprintf(w, "identity    %s\n", output.Text(id))
	fmt.Fprintf(w, "valid       %s to %s (%s left)\n", r.NotBefore.Format(time.RFC3339), r.NotAfter.Format(time.RFC3339), output.Short(time.Until(r.NotAfter)))
	fmt.Fprintf(w, "serial      %s, %s key, issued by %s\n", r.Serial, r.Key, output.Text(r.Issuer))
	if r.TLS != "" {
		fmt.Fprintf(w, "connection  %s\n", r.TLS)
	}
	fmt.Fprintf(w, "verdict     %s\n", r.Verdict)
	if r.Why != "" {
		fmt.Fprintf(w, "            %s\n", output.Text(r.Why))
	}
	return nil
}
