// Command bench compares the sidecar with other proxies at the same job, in one
// run: CPU per request of all of a proxy's threads, from the kernel's schedstat,
// with the load generator and the origin in another process. Rounds are paired:
// each measures every contender once, in random order, and ratios are made within
// a round, so that what else the machine does falls on all alike; a run that other
// work disturbed is measured again, or marked. Memory is measured on proxies of
// their own.
//
// The goals are in the program (bars.go). It prints which are met, and exits 0
// all the same; with -strict a missed one is an error.
//
// `make bench` runs it, `make bench-full` every job with all sizes;
// docs/benchmarks.md has the method and figures.
package main
