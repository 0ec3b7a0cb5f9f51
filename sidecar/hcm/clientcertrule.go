package hcm

import (
	"fmt"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
)

// ClientCertRule is Envoy's ForwardClientCertConfig: what happens to x-forwarded-client-cert, and
// what it tells of the peer's certificate besides its hash.
type ClientCertRule struct {
	Forward ForwardClientCert
	Tell    ClientCert
}

// ClientCertCases choose a rule for each request. The first case that holds does; where none does
// it is Otherwise, nil for the manager's own.
type ClientCertCases struct {
	When      []authz.Condition
	Then      []ClientCertRule // for each of When
	Otherwise *ClientCertRule
}

func (r *ClientCertRule) writes() bool {
	return r.Forward == AppendForward || r.Forward == SanitizeSet
}

func (r *ClientCertRule) needsPeerChain() bool {
	d := r.Tell
	return r.writes() && (d.Cert || d.Chain || d.Subject || d.Issuer || d.DNS)
}

// ownClientCertRule is that of requests for which there is no other.
func (c *Config) ownClientCertRule() ClientCertRule {
	return ClientCertRule{c.ForwardClientCert, c.ClientCert}
}

// newClientCertChoice compiles the conditions of Config.ClientCertCases, nil for none.
func newClientCertChoice(c *ClientCertCases) (*authz.Choice, error) {
	if c == nil {
		return nil, nil
	}
	if len(c.When) != len(c.Then) {
		return nil, fmt.Errorf("client certificates: %d conditions for %d rules", len(c.When), len(c.Then))
	}
	choice, err := authz.NewChoice(c.When)
	if err != nil {
		return nil, fmt.Errorf("client certificates: %w", err)
	}
	return choice, nil
}

// clientCertRule is the request's. What cannot be told of it has the manager's own rule decide, as in Envoy.
func (x *exchange) clientCertRule() ClientCertRule {
	cfg := x.policy.cfg
	if x.policy.certs == nil {
		return cfg.ownClientCertRule()
	}
	cases := cfg.ClientCertCases
	// Of who connected: whom x-forwarded-for names as the client is the client's to choose, as yet.
	switch i, known := x.policy.certs.Choose(&x.d.Peer, x.req); {
	case known && i < len(cases.Then):
		return cases.Then[i]
	case known && cases.Otherwise != nil:
		return *cases.Otherwise
	}
	return cfg.ownClientCertRule()
}
