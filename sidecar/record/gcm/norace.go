//go:build !race

package gcm

const instrumented = false
