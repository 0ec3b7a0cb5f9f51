// Package paths proves that authorization decides upon the path that the origin
// receives, however a client writes it.
package paths
