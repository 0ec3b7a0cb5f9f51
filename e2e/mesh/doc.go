// Package mesh holds the whole-system suites: the real Consul, real processes,
// real TLS, real xDS. They run with the build tag e2e.
package mesh
