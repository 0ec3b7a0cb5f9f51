// Package names derives the names that resources carry. A cluster's name is the
// SNI its TLS connections send, and is Consul's string, so that Consul Connect's
// own proxies are peers (DESIGN 4, seam e).
package names

import (
	"net"
	"strconv"
	"strings"
)

// Well-known secret names, as SPIRE's SDS serves them.
const (
	// DefaultSecret is the certificate of the workload that opens the
	// connection: for a listener's traffic, that listener's workload. Only our
	// own sidecar can tell; to others the host socket serves it while they have
	// one identity, so their resources name secrets by SPIFFE ID.
	DefaultSecret = "default"
	// RootSecret is the trust bundle of the own trust domain.
	RootSecret = "ROOTCA"
	// AgentCluster is the static bootstrap cluster of the host socket that
	// serves SDS. Our own sidecar answers it from its in-process agent.
	AgentCluster = "hauberk_agent"
	// MetadataNamespace is the filter_metadata key of Hauberk's own facts on a
	// listener: "workload" (SPIFFE ID), "service", "direction", "upstream".
	MetadataNamespace = "hauberk"
)

// Cluster returns the SNI and cluster name of a service or subset:
// "[subset.]service.namespace.datacenter.internal.trust-domain", with the
// partition before the datacenter and "internal-v1" when it is not the default.
func Cluster(subset, service, namespace, partition, datacenter, trustDomain string) string {
	var b strings.Builder
	if subset != "" {
		b.WriteString(subset)
		b.WriteByte('.')
	}
	b.WriteString(service)
	b.WriteByte('.')
	b.WriteString(namespace)
	b.WriteByte('.')
	if partition != "" && partition != "default" {
		b.WriteString(partition)
		b.WriteByte('.')
		b.WriteString(datacenter)
		b.WriteString(".internal-v1.")
	} else {
		b.WriteString(datacenter)
		b.WriteString(".internal.")
	}
	b.WriteString(trustDomain)
	return b.String()
}

// Failover names the aggregate cluster that tries cluster first.
func Failover(cluster string) string { return "failover~" + cluster }

// Routes names the route configuration by which a service calls another, whose
// cluster is named cluster. It stays the same whatever the caller's settings
// are: connections that are open look their routes up by it.
func Routes(cluster, service, namespace string) string {
	return "outbound/" + CalledBy(cluster, service, namespace)
}

// CalledBy names a cluster of one caller where a client has one for each: "@"
// and the service, which no other part of a name can hold.
func CalledBy(name, service, namespace string) string {
	name += "@" + service
	if namespace != "" && namespace != "default" {
		name += "@" + namespace
	}
	return name
}

// LocalApp names the cluster of a workload's own application, which keeps its
// name when the application moves to another port: connections that are open
// route to it. A workload's ID is unique on its Consul node only, so the service
// comes first: it holds no colon, and no other service's workload has the name.
func LocalApp(service, namespace, workloadID string) string {
	if namespace != "" && namespace != "default" {
		service += "@" + namespace
	}
	return "local_app:" + service + ":" + workloadID
}

// Inbound names the mTLS listener of a host address.
func Inbound(host string, port int) string {
	return "inbound:" + net.JoinHostPort(host, strconv.Itoa(port))
}

// Outbound names the loopback listener of one workload's declared upstream.
func Outbound(workloadID, upstream, host string, port int) string {
	return "outbound:" + workloadID + ":" + upstream + ":" + net.JoinHostPort(host, strconv.Itoa(port))
}
