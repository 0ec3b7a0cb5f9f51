// Package differential runs a real Envoy and the sidecar side by side with the
// same bootstrap file, sends both the same bytes, and compares what comes back,
// what the origins saw, and what the access logs say. Envoy is the oracle: a case
// has no expectations of its own. Where the sidecar differs, the case says how and
// why, and fails when the difference is gone.
//
// The table is testdata/*.yaml; docs/differential.md is made from it.
package differential
