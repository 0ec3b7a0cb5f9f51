// Package files runs the sidecar and a real Envoy by the same files of discovery, and changes
// those under both.
package files
