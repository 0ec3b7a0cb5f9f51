// Package smuggling is the corpus of HTTP messages that are malformed, ambiguous or
// hostile, one file for each class, and what the sidecar must make of each: the
// answer, whether the connection goes on, and the exact bytes that the other side may
// see. docs/conformance.md tells how to run it and how a case is written.
package smuggling
