package cluster

import (
	"crypto/tls"
	"errors"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
)

// noTLS is a source of certificates that has none.
type noTLS struct{}

func (noTLS) ClientTLS(string, string, *TLS) (*tls.Config, *handshake.Own, error) {
	return nil, nil, errors.New("no certificates")
}

// someTLS has certificates, once it is ready.
type someTLS struct{ err atomic.Pointer[error] }

func (p *someTLS) ClientTLS(string, string, *TLS) (*tls.Config, *handshake.Own, error) {
	if err := p.err.Load(); err != nil {
		return nil, nil, *err
	}
	return &tls.Config{}, &handshake.Own{ID: "spiffe://td/web"}, nil
}
