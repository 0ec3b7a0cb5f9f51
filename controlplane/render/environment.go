package render

import (
	"fmt"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/hashicorp/consul/api"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// Environment holds the facts that every resource shares: the trust domain and
// what the mesh and proxy-defaults entries say. Immutable.
type Environment struct {
	TrustDomain string
	Datacenter  string
	Problems    []Problem
	// Deps are the entries it was read from.
	Deps compile.Deps

	td                 spiffeid.TrustDomain
	incoming, outgoing tlsSettings
	http               httpSettings
	validateClusters   bool
	proxyDefaults      *api.ProxyConfigEntry
}

type httpSettings struct {
	sanitizeXFCC   bool
	normalizePath  bool
	mergeSlashes   bool
	escapedSlashes hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction
	underscores    corev3.HttpProtocolOptions_HeadersWithUnderscoresAction
}

var (
	meshKey          = catalog.Entry(api.MeshConfig, api.MeshConfigMesh)
	proxyDefaultsKey = catalog.Entry(api.ProxyDefaults, api.ProxyConfigGlobal)
)

// NewEnvironment reads the shared facts of a snapshot. The error is a trust
// domain that cannot be one; everything else that is wrong is a Problem, and
// the stricter setting stands in for it.
func NewEnvironment(snap *catalog.Snapshot) (*Environment, error) {
	td, err := spiffe.TrustDomain(snap.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	e := &Environment{
		TrustDomain: snap.TrustDomain,
		Datacenter:  snap.Datacenter,
		td:          td,
		Deps:        compile.Deps{Entries: map[catalog.EntryKey]struct{}{meshKey: {}, proxyDefaultsKey: {}}},
		http: httpSettings{
			normalizePath:  true,
			escapedSlashes: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		},
	}
	for _, k := range []catalog.EntryKey{meshKey, proxyDefaultsKey} {
		if reason, broken := snap.Broken[k]; broken {
			e.problem(k.String(), "%s; the defaults apply until it is mended", reason)
		}
	}
	if _, broken := snap.Broken[meshKey]; broken {
		// These two are stricter than the defaults, and may be what it asks for.
		e.http.sanitizeXFCC = true
		e.http.underscores = corev3.HttpProtocolOptions_REJECT_REQUEST
		e.problem("mesh HTTP", "x-forwarded-client-cert is set anew and headers with underscores are refused until the entry is mended")
	}
	mesh, _ := snap.Entries[meshKey].(*api.MeshConfigEntry)
	e.readMesh(mesh)
	if pd, ok := snap.Entries[proxyDefaultsKey].(*api.ProxyConfigEntry); ok {
		e.proxyDefaults = pd
	}
	return e, nil
}

func (e *Environment) problem(path, format string, args ...any) {
	e.Problems = append(e.Problems, Problem{Path: path, Reason: fmt.Sprintf(format, args...)})
}

func (e *Environment) readMesh(m *api.MeshConfigEntry) {
	var in, out *api.MeshDirectionalTLSConfig
	if m != nil && m.TLS != nil {
		in, out = m.TLS.Incoming, m.TLS.Outgoing
	}
	e.incoming = e.readTLS("mesh TLS.Incoming", in)
	e.outgoing = e.readTLS("mesh TLS.Outgoing", out)
	if m == nil {
		return
	}
	e.validateClusters = m.ValidateClusters
	if m.TransparentProxy.MeshDestinationsOnly {
		e.problem("mesh TransparentProxy.MeshDestinationsOnly", "transparent proxies are not supported; declare Upstreams instead")
	}
	if m.Peering != nil && m.Peering.PeerThroughMeshGateways {
		e.problem("mesh Peering.PeerThroughMeshGateways", "peering is not supported; remove the setting")
	}
	if m.AllowEnablingPermissiveMutualTLS {
		e.problem("mesh AllowEnablingPermissiveMutualTLS", "plaintext to a meshed port is not supported; mutual TLS stays strict")
	}
	if m.HTTP == nil {
		return
	}
	e.http.sanitizeXFCC = m.HTTP.SanitizeXForwardedClientCert
	if m.HTTP.Incoming != nil && m.HTTP.Incoming.RequestNormalization != nil {
		e.readNormalization(m.HTTP.Incoming.RequestNormalization)
	}
}

func (e *Environment) readNormalization(n *api.RequestNormalizationMeshConfig) {
	const path = "mesh HTTP.Incoming.RequestNormalization."
	e.http.normalizePath = !n.InsecureDisablePathNormalization
	e.http.mergeSlashes = n.MergeSlashes
	switch n.PathWithEscapedSlashesAction {
	case "", "IMPLEMENTATION_SPECIFIC_DEFAULT", "REJECT_REQUEST":
	case "KEEP_UNCHANGED":
		e.http.escapedSlashes = hcmv3.HttpConnectionManager_KEEP_UNCHANGED
	case "UNESCAPE_AND_REDIRECT":
		e.http.escapedSlashes = hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT
	case "UNESCAPE_AND_FORWARD":
		e.http.escapedSlashes = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
	default:
		e.problem(path+"PathWithEscapedSlashesAction",
			"%q is not an action; requests with escaped slashes are rejected; use KEEP_UNCHANGED, REJECT_REQUEST, UNESCAPE_AND_REDIRECT or UNESCAPE_AND_FORWARD",
			n.PathWithEscapedSlashesAction)
	}
	switch n.HeadersWithUnderscoresAction {
	case "", "ALLOW":
	case "REJECT_REQUEST":
		e.http.underscores = corev3.HttpProtocolOptions_REJECT_REQUEST
	case "DROP_HEADER":
		e.http.underscores = corev3.HttpProtocolOptions_DROP_HEADER
	default:
		e.http.underscores = corev3.HttpProtocolOptions_REJECT_REQUEST
		e.problem(path+"HeadersWithUnderscoresAction",
			"%q is not an action; requests with such headers are rejected; use ALLOW, REJECT_REQUEST or DROP_HEADER", n.HeadersWithUnderscoresAction)
	}
}

// ServiceID returns the SPIFFE ID of a service.
func (e *Environment) ServiceID(n catalog.Name) (string, error) {
	if n.Peer != "" || (n.Partition != "" && n.Partition != catalog.DefaultPartition) {
		return "", fmt.Errorf("render: service %s: only the default partition, without peers, has identities here", n)
	}
	id, err := spiffe.ForService(e.td, n.Namespace, n.Datacenter, n.Service)
	if err != nil {
		return "", fmt.Errorf("render: service %s: %w", n, err)
	}
	return id.String(), nil
}

// ClusterName returns the name and SNI of a service or subset.
func (e *Environment) ClusterName(subset string, n catalog.Name) string {
	return names.Cluster(subset, n.Service, n.Namespace, n.Partition, n.Datacenter, e.TrustDomain)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
