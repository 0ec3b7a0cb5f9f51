package validate

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
)

// Proxy reports what the control plane cannot do of a connect-proxy
// registration, as an *Error. Paths begin at the registration's Proxy.
func Proxy(p *api.AgentServiceConnectProxyConfig) error {
	c := &checker{}
	c.name("DestinationServiceName", p.DestinationServiceName)
	c.proxyConfig("Config", p.Config)
	c.shape("", p.Mode, p.TransparentProxy, p.MeshGateway, p.Expose, p.EnvoyExtensions)
	c.accessLogs("AccessLogs", p.AccessLogs)
	c.socketPath("LocalServiceSocketPath", p.LocalServiceSocketPath)
	c.not(len(p.LocalServicePorts) > 0, "LocalServicePorts", "several ports are not supported; use LocalServicePort")
	c.not(p.LocalServiceSocketPath != "" && p.LocalServicePort > 0, "LocalServicePort", "an application listens on a port or on a socket; remove one")
	if p.LocalServicePort < 0 || p.LocalServicePort > 65535 {
		c.add("LocalServicePort", "%d is not a port", p.LocalServicePort)
	}
	binds := map[string]bool{}
	for i := range p.Upstreams {
		u := &p.Upstreams[i]
		if u.CentrallyConfigured {
			continue
		}
		path := fmt.Sprintf("Upstreams[%d].", i)
		c.upstream(path, u)
		field, bind := "LocalBindSocketPath", u.LocalBindSocketPath
		if bind == "" {
			field, bind = "LocalBindPort", fmt.Sprintf("%s:%d", orLoopback(u.LocalBindAddress), u.LocalBindPort)
		}
		c.not(binds[bind], path+field, bind+" is taken by an earlier upstream")
		binds[bind] = true
	}
	return c.err()
}

func orLoopback(addr string) string {
	if addr == "" {
		return "127.0.0.1"
	}
	return addr
}

func (c *checker) upstream(path string, u *api.Upstream) {
	c.name(path+"DestinationName", u.DestinationName)
	c.scope(path+"Destination", u.DestinationNamespace, u.DestinationPartition)
	c.not(u.DestinationType != "" && u.DestinationType != api.UpstreamDestTypeService,
		path+"DestinationType", fmt.Sprintf("%q is not supported; use service", u.DestinationType))
	c.not(u.DestinationPeer != "", path+"DestinationPeer", "peers are not supported; remove it")
	c.not(u.DestinationPort != "", path+"DestinationPort", "several ports of one service are not supported; remove it")
	c.meshGateway(path+"MeshGateway.Mode", u.MeshGateway)
	c.localBind(path, u)
	_, problems := opaque.ReadUpstream(u.Config)
	c.opaque(path+"Config", problems)
}

// localBind checks where an upstream listens: a Unix socket, or else an address.
func (c *checker) localBind(path string, u *api.Upstream) {
	if u.LocalBindSocketPath != "" {
		c.socketPath(path+"LocalBindSocketPath", u.LocalBindSocketPath)
		c.not(u.LocalBindPort != 0, path+"LocalBindPort", "an upstream listens on a port or on a socket; remove one")
		if m := u.LocalBindSocketMode; m != "" && m != "0600" && m != "600" {
			c.add(path+"LocalBindSocketMode", "%q: sidecars make their sockets 0600; run the application as the sidecar's user", m)
		}
		return
	}
	c.not(u.LocalBindSocketMode != "", path+"LocalBindSocketMode", "has a meaning only with LocalBindSocketPath; remove it")
	if u.LocalBindPort < 1 || u.LocalBindPort > 65535 {
		c.add(path+"LocalBindPort", "%d is not a port", u.LocalBindPort)
	}
	if u.LocalBindAddress != "" {
		if _, err := netip.ParseAddr(u.LocalBindAddress); err != nil {
			c.add(path+"LocalBindAddress", "%q is not an IP address", u.LocalBindAddress)
		}
	}
}

// maxSocketPath is sockaddr_un.sun_path without its terminating zero.
const maxSocketPath = 107

// ours says whether a socket is where the agent's, the control plane's and the administration's are
// by default (/run/hauberk, XDG_RUNTIME_DIR/hauberk, /tmp/hauberk-UID, /var/lib/hauberk), however the
// path leads there. They hand out private keys to whom the kernel says, and that would be the sidecar.
func ours(socket string) bool {
	socket = filepath.Clean(socket)
	for dir := range strings.SplitSeq(filepath.Dir(socket), "/") {
		if dir == "hauberk" || strings.HasPrefix(dir, "hauberk-") {
			return true
		}
	}
	return strings.HasPrefix(socket, "/proc/")
}

func (c *checker) socketPath(path, socket string) {
	switch {
	case socket == "":
	case !filepath.IsAbs(socket):
		c.add(path, "%q is not an absolute path", socket)
	case ours(socket):
		c.add(path, "%q: Hauberk's own sockets are not for applications: whoever may register the service could have the sidecar speak there, or answer, with its user's rights", socket)
	case len(socket) > maxSocketPath:
		c.add(path, "%q is longer than the %d bytes a Unix socket's path may have", socket, maxSocketPath)
	}
}
