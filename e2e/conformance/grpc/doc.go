// Package interop runs gRPC through sidecars: grpc-go's own interoperability client
// and server, servers that break streams on purpose, and a soak that must leave
// nothing behind.
package interop
