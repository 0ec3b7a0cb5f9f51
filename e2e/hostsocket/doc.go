// Package hostsocket shows the host socket of an agent with whole processes: a
// control plane, an agent or a sidecar, and SPIFFE's own client. Its tests carry
// the build tag e2e.
package hostsocket
