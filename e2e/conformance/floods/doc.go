// Package floods sends the sidecar what a hostile peer would, from either side, in
// numbers, and watches its memory and the requests of others meanwhile.
package floods
