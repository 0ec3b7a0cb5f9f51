// Package h2spec has h2spec's cases played to the sidecar from either side: as a client's frames, and as those of a
// hostile upstream, with other requests that must be served beside and behind them.
package h2spec
