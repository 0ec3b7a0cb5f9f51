// Package opaque reads the free-form maps of Consul's configuration: the Config
// of proxies and of upstreams. The gate (package validate) and the renderer use
// the same readers, so what the gate lets through is what takes effect.
package opaque

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Problem is one key that cannot be used.
type Problem struct {
	// Key is the key as it was written.
	Key string
	// Reason is a sentence fragment that says what is wrong and what to do.
	Reason string
}

// wholeNumber takes what JSON, HCL and YAML decoders make of one.
func wholeNumber(v any) (int, error) {
	switch n := v.(type) {
	case int:
		return n, nil
	case int64:
		return int(n), nil
	case uint64:
		if n <= math.MaxInt {
			return int(n), nil
		}
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return int(n), nil
		}
	case json.Number:
		i, err := n.Int64()
		return int(i), err
	case string:
		return strconv.Atoi(n)
	}
	return 0, fmt.Errorf("%v is not a whole number", v)
}

// fields walks an opaque map in order, with each key in lower case and without
// the separators in which spellings differ (MaxFailures, max_failures). A null is
// unset. Where both spellings are there, the one with separators comes last: a
// Consul agent merges its copies in the other one beneath what a person wrote.
func fields(v any, each func(key string, v any) error) error {
	m, ok := object(v)
	if !ok {
		return fmt.Errorf("want an object, have %v", v)
	}
	for _, k := range sortedKeys(m) {
		if m[k] == nil {
			continue
		}
		if err := each(plainKey(k), m[k]); err != nil {
			return &fieldError{k, err}
		}
	}
	return nil
}

// fieldError is an error about a key of an object.
type fieldError struct {
	key string
	err error
}

func (e *fieldError) Error() string { return e.key + ": " + e.err.Error() }

func (e *fieldError) Unwrap() error { return e.err }

// problem is an error about a key as a Problem, with the path inside of the key.
func problem(key string, err error) Problem {
	for {
		at, ok := err.(*fieldError)
		if !ok {
			return Problem{key, err.Error()}
		}
		key, err = key+"."+at.key, at.err
	}
}

func plainKey(k string) string { return strings.ReplaceAll(strings.ToLower(k), "_", "") }

// object takes what decoders make of one: HCL makes a list of a block, which Consul
// gives back in JSON.
func object(v any) (m map[string]any, ok bool) {
	switch o := v.(type) {
	case []map[string]any:
		if len(o) == 1 {
			return o[0], true
		}
	case []any:
		if len(o) == 1 {
			return object(o[0])
		}
	}
	m, ok = v.(map[string]any)
	return m, ok
}

func count(v any, limit int) (int, error) {
	n, err := wholeNumber(v)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("want a whole number from 0 to %d, have %v", limit, v)
	}
	return n, nil
}

// span reads a duration: "10s", or nanoseconds as Consul's API sends them.
func span(v any) (time.Duration, error) {
	if s, ok := v.(string); ok {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return 0, fmt.Errorf("%q is not a duration such as 10s", s)
		}
		return d, nil
	}
	n, err := wholeNumber(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("want a duration such as 10s, have %v", v)
	}
	return time.Duration(n), nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
