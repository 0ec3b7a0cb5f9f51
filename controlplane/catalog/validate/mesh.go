package validate

import "github.com/hashicorp/consul/api"

func (c *checker) mesh(e *api.MeshConfigEntry) {
	c.not(e.TransparentProxy.MeshDestinationsOnly, "TransparentProxy.MeshDestinationsOnly", "transparent proxies are not supported; remove it and declare upstreams")
	c.not(e.AllowEnablingPermissiveMutualTLS, "AllowEnablingPermissiveMutualTLS", "a meshed port takes no plaintext; remove it")
	c.not(e.Peering != nil && e.Peering.PeerThroughMeshGateways, "Peering.PeerThroughMeshGateways", "peering is not supported; remove it")
	if e.TLS != nil {
		c.meshTLS("TLS.Incoming.", e.TLS.Incoming)
		c.meshTLS("TLS.Outgoing.", e.TLS.Outgoing)
	}
	if e.HTTP == nil || e.HTTP.Incoming == nil || e.HTTP.Incoming.RequestNormalization == nil {
		return
	}
	const path = "HTTP.Incoming.RequestNormalization."
	n := e.HTTP.Incoming.RequestNormalization
	c.oneOf(path+"PathWithEscapedSlashesAction", n.PathWithEscapedSlashesAction,
		"IMPLEMENTATION_SPECIFIC_DEFAULT", "KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD")
	c.oneOf(path+"HeadersWithUnderscoresAction", n.HeadersWithUnderscoresAction, "ALLOW", "REJECT_REQUEST", "DROP_HEADER")
}

func (c *checker) meshTLS(path string, t *api.MeshDirectionalTLSConfig) {
	if t == nil {
		return
	}
	c.oneOf(path+"TLSMinVersion", t.TLSMinVersion, "TLS_AUTO", "TLSv1_2", "TLSv1_3")
	// Sidecars speak TLS 1.3 to each other; 1.2 is for old peers only.
	c.oneOf(path+"TLSMaxVersion", t.TLSMaxVersion, "TLS_AUTO", "TLSv1_3")
}
