// Package identityv1 is the protocol between nodes and control planes, and
// between control planes, by which identities are obtained, renewed and
// withdrawn. It shares the control plane's TLS port with ADS.
//
// No message of this protocol can carry a private key: requests carry CSRs,
// replies carry certificates.
package identityv1

//go:generate go run ./internal/gen
