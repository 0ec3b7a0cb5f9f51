//go:build race

package gcm

// instrumented: the race detector does not see what assembly reads and writes, so that it sees
// crypto/cipher's code instead.
const instrumented = true
