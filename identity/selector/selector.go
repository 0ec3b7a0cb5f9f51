// Package selector says which processes of a host an identity is for. The kinds
// are those that a process cannot choose for itself: its user, its group and its
// systemd unit. What a process runs is not among them: it can exec another
// program behind an open connection.
package selector

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a selector looks at.
type Kind string

// The kinds.
const (
	// UID and GID are the effective user and primary group when the caller
	// connected.
	UID Kind = "uid"
	GID Kind = "gid"
	// Unit is the system manager's service or scope that the caller runs in.
	Unit Kind = "unit"
)

// overflowID is what the kernel shows for each user or group that has no mapping
// in the reader's user namespace (/proc/sys/kernel/overflowuid), whoever it is.
const overflowID = 65534

// maxUnit is systemd's UNIT_NAME_MAX.
const maxUnit = 255

// Selector is one condition. The zero value matches nothing.
type Selector struct {
	Kind   Kind
	Number uint32 // of UID and GID
	Name   string // of Unit
}

// Facts are what is known of a process. An empty Unit is none.
type Facts struct {
	UID, GID uint32
	Unit     string
}

// Parse reads "uid=1001", "gid=1001" or "unit=web.service". It has one way to
// write each selector and refuses others.
func Parse(s string) (Selector, error) {
	kind, value, _ := strings.Cut(s, "=")
	switch k := Kind(kind); k {
	case UID, GID:
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != value || n == 1<<32-1 {
			return Selector{}, fmt.Errorf("selector %q: write the number of a user or group, as in %s=1001", s, kind)
		}
		if n == overflowID {
			return Selector{}, fmt.Errorf("selector %q: %d is also what every user without a mapping in a container looks like, so it tells nobody apart: run the workload as a user of its own", s, n)
		}
		return Selector{Kind: k, Number: uint32(n)}, nil
	case Unit:
		if !IsUnit(value) {
			return Selector{}, fmt.Errorf("selector %q: write the name of a systemd service or scope, as in unit=web.service", s)
		}
		return Selector{Kind: k, Name: value}, nil
	}
	return Selector{}, fmt.Errorf("selector %q: kind %q is not known, use uid, gid or unit", s, kind)
}

// IsUnit reports whether name is that of a systemd service or scope, as
// systemd.unit(5) allows it.
func IsUnit(name string) bool {
	stem, suffix, ok := cutLast(name, ".")
	if !ok || stem == "" || len(name) > maxUnit || suffix != "service" && suffix != "scope" {
		return false
	}
	for _, c := range []byte(stem) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(`:-_.\@`, c) >= 0:
		default:
			return false
		}
	}
	return true
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// String writes the selector as Parse reads it.
func (s Selector) String() string {
	if s.Kind == Unit {
		return string(Unit) + "=" + s.Name
	}
	return string(s.Kind) + "=" + strconv.FormatUint(uint64(s.Number), 10)
}

// Matches reports whether the process meets the condition.
func (s Selector) Matches(f Facts) bool {
	switch s.Kind {
	case UID:
		return f.UID == s.Number
	case GID:
		return f.GID == s.Number
	case Unit:
		return f.Unit != "" && f.Unit == s.Name
	}
	return false
}

// Set is conditions that must all hold. An empty set matches nothing: an
// identity that is for nobody in particular is served to nobody.
type Set []Selector

// ParseSet reads each of them.
func ParseSet(in []string) (Set, error) {
	var out Set
	for _, s := range in {
		parsed, err := Parse(s)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o Selector) bool { return o.Kind == parsed.Kind && o != parsed }) {
			return nil, fmt.Errorf("selector %q: all selectors of an entry must hold, and there is another %s= already: write an entry for each", s, parsed.Kind)
		}
		if !slices.Contains(out, parsed) {
			out = append(out, parsed)
		}
	}
	return out, nil
}

// Matches reports whether the process meets every condition of a set that has
// one.
func (s Set) Matches(f Facts) bool {
	for _, x := range s {
		if !x.Matches(f) {
			return false
		}
	}
	return len(s) > 0
}

// Needs reports whether the set looks at the kind.
func (s Set) Needs(k Kind) bool {
	return slices.ContainsFunc(s, func(x Selector) bool { return x.Kind == k })
}

// String writes the set for people.
func (s Set) String() string {
	out := make([]string, len(s))
	for i, x := range s {
		out[i] = x.String()
	}
	return strings.Join(out, ",")
}
