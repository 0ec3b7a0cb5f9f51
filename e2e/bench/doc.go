// Command bench compares the sidecar with other proxies at the same job, in one
// run: CPU per request of all of a proxy's threads, from the kernel's schedstat,
// with the load generator and the origin in another process. Rounds are paired:
// each measures every contender once, in random order, and ratios are made within
// a round, so that what else the machine does falls on all alike.
//
// `make bench` runs it; docs/benchmarks.md has the method and figures.
package main
