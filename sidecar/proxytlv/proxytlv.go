// Package proxytlv has the extensions that a header of the PROXY protocol's version 2 may have
// behind its addresses (HAProxy's proxy-protocol.txt, 2.2): each has a type, a length and a value.
package proxytlv

import (
	"encoding/binary"
	"hash/crc32"
	"iter"
	"math"
	"strings"
)

// List are extensions as they stand in a header, each of them whole.
type List string

// MostValue is how many bytes the value of one may have.
const MostValue = math.MaxUint16

// MostHeader is how many bytes a whole header of version 2 may have that a listener takes, and
// therefore one that is written.
const MostHeader = 4096

// MostAdded is how many bytes of extensions such a header has room for behind addresses of IPv6.
const MostAdded = MostHeader - 16 - 36

// head are a type and a length.
const head = 3

// Parse takes what stands behind the addresses of a header. It is false for what is not whole.
func Parse(b []byte) (List, bool) {
	for rest := b; len(rest) > 0; {
		if len(rest) < head {
			return "", false
		}
		n := head + int(binary.BigEndian.Uint16(rest[1:]))
		if len(rest) < n {
			return "", false
		}
		rest = rest[n:]
	}
	return List(b), true
}

// With returns the list with one more at its end. The value has MostValue bytes at most.
func (l List) With(kind byte, value string) List {
	n := uint16(len(value))
	return l + List([]byte{kind, byte(n >> 8), byte(n)}) + List(value)
}

// All are the types and values, in their order.
func (l List) All() iter.Seq2[byte, string] {
	return func(yield func(byte, string) bool) {
		for one := range l.each {
			if !yield(one[0], string(one[head:])) {
				return
			}
		}
	}
}

// each are the extensions, each as a list of its own.
func (l List) each(yield func(List) bool) {
	for len(l) > 0 {
		n := head + int(l[1])<<8 + int(l[2])
		if !yield(l[:n]) {
			return
		}
		l = l[n:]
	}
}

// types are those that the list has, a bit each.
func (l List) types() (set [4]uint64) {
	for one := range l.each {
		set[one[0]>>6] |= 1 << (one[0] & 63)
	}
	return set
}

// Pick are those of the types that are taken.
func (l List) Pick(take func(kind byte) bool) List {
	var out strings.Builder
	for one := range l.each {
		if take(one[0]) {
			out.WriteString(string(one))
		}
	}
	return List(out.String())
}

// Without are those whose type none of others has.
func (l List) Without(others List) List {
	set := others.types()
	return l.Pick(func(kind byte) bool { return set[kind>>6]&(1<<(kind&63)) == 0 })
}

// Within are those that most bytes have room for, in their order, without the ones that are too
// long, as in Envoy.
func (l List) Within(most int) List {
	if len(l) <= most {
		return l
	}
	var out strings.Builder
	for one := range l.each {
		if out.Len()+len(one) <= most {
			out.WriteString(string(one))
		}
	}
	return List(out.String())
}

// checksum is the type of the CRC-32c of a whole header, with zeros in its own place.
const checksum = 3

// Sum makes the checksums of a header anew, which were of another: header begins with what stands
// before the list, whose length is before.
func Sum(header []byte, before int) {
	var sums [][]byte
	for at := before; at < len(header); {
		n := int(binary.BigEndian.Uint16(header[at+1:]))
		if value := header[at+head : at+head+n]; header[at] == checksum && n == crc32.Size {
			clear(value)
			sums = append(sums, value)
		}
		at += head + n
	}
	if len(sums) == 0 {
		return
	}
	// Two of them would be of each other: what is no header of the protocol stays none.
	binary.BigEndian.PutUint32(sums[0], crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli)))
}

// Choice says which extensions are passed on. The zero value passes none.
type Choice struct {
	All   bool
	Types string // each byte is one
}

// Of are those of the list that are passed on.
func (c *Choice) Of(l List) List {
	if c.All || l == "" {
		return l
	}
	return l.Pick(func(kind byte) bool { return strings.IndexByte(c.Types, kind) >= 0 })
}
