package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

// baseline is one hop of httputil.ReverseProxy, as its file has it. Names of files
// are empty where a side has no TLS.
type baseline struct {
	Listen, Upstream  string
	InHTTP2, OutHTTP2 bool
	InTLS, OutTLS     bool
	Cert, Key, CA     string
}

func reverseProxyFile(b *bench, h hop) string {
	text, _ := json.Marshal(baseline{ // of strings and booleans: it does not fail
		Listen: h.listen, Upstream: h.upstream, InHTTP2: h.in.proto == http2, OutHTTP2: h.out.proto == http2, InTLS: h.in.mtls, OutTLS: h.out.mtls,
		Cert: b.file(h.name + ".crt"), Key: b.file(h.name + ".key"), CA: b.file("ca.crt"),
	})
	return string(text)
}

// reverseProxy is what Go's standard library does with its defaults, but for as
// many idle connections as the peers keep.
func reverseProxy(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var x baseline
	if err := json.Unmarshal(text, &x); err != nil {
		return err
	}
	in, out := &tls.Config{}, &tls.Config{}
	if x.InTLS || x.OutTLS {
		if in, out, err = x.tls(); err != nil {
			return err
		}
	}
	to := &url.URL{Scheme: "http", Host: x.Upstream}
	if x.OutTLS {
		to.Scheme = "https"
	}
	p := httputil.NewSingleHostReverseProxy(to)
	p.Transport = &http.Transport{MaxIdleConnsPerHost: 1024, TLSClientConfig: out, Protocols: protocols(x.OutHTTP2, x.OutTLS)}
	s := &http.Server{Addr: x.Listen, Handler: p, TLSConfig: in, Protocols: protocols(x.InHTTP2, x.InTLS)}
	if x.InTLS {
		return s.ListenAndServeTLS("", "")
	}
	return s.ListenAndServe()
}

func protocols(http2, tls bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetHTTP2(http2 && tls)
	p.SetUnencryptedHTTP2(http2 && !tls)
	return p
}

// tls is of both sides. Without a cache of sessions a client resumes none.
func (x baseline) tls() (in, out *tls.Config, err error) {
	cert, err := tls.LoadX509KeyPair(x.Cert, x.Key)
	if err != nil {
		return nil, nil, err
	}
	ca, err := os.ReadFile(x.CA)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, nil, errors.New(x.CA + ": no certificate")
	}
	own := tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, Certificates: []tls.Certificate{cert}}
	in, out = own.Clone(), own.Clone()
	in.ClientAuth, in.ClientCAs, in.SessionTicketsDisabled = tls.RequireAndVerifyClientCert, roots, true
	out.RootCAs, out.ServerName = roots, "api.bench"
	return in, out, nil
}
