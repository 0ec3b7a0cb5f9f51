// Package message is the one model of an HTTP message for all versions of the
// protocol: fields in the order and case received, bodies that are pulled, and
// trailers. A message is reused for one exchange after another and allocates
// nothing once it has grown to the traffic's size.
package message

import "unsafe"

// Fields is a list of header (or trailer) fields in order. Bytes live in one
// arena; a mutation appends to it and never moves what was handed out.
//
// Strings returned by Fields alias the arena: they are valid until Reset and
// must be cloned to be kept longer. The zero value is ready.
type Fields struct {
	arena []byte
	list  []field
	// present has a bit for each id that may be in the list: most lookups are
	// for fields that are not there, and end at this bit.
	present uint64
	// repeated has one for each that was noted or added when it was present.
	repeated uint64
	live     int
}

type field struct {
	nameOff, nameLen uint32
	valOff, valLen   uint32
	id               ID
	dead             bool
	// checked fields came through a parser's validation; the serialiser
	// validates the others, so that no filter can inject a line.
	checked bool
	// line: in the arena it stands as HTTP/1 writes it, "name: value" and CRLF.
	line bool
}

// The ids fit one word; a compile error here asks for a second.
const _ = uint(64 - numIDs)

// Reset empties the list and keeps its memory. Memory beyond what ordinary
// messages need is given back.
func (f *Fields) Reset() {
	const keepArena, keepFields = 16 << 10, 128
	if cap(f.arena) > keepArena {
		f.arena = nil
	}
	if cap(f.list) > keepFields {
		f.list = nil
	}
	f.arena = f.arena[:0]
	f.list = f.list[:0]
	f.present, f.repeated, f.live = 0, 0, 0
}

// Len is the number of fields.
func (f *Fields) Len() int { return f.live }

// Slots is the bound of the index that At takes.
func (f *Fields) Slots() int { return len(f.list) }

// At returns the field in slot i; ok is false for a slot whose field was
// removed.
//
//	for i := range f.Slots() {
//		if name, value, ok := f.At(i); ok { … }
//	}
func (f *Fields) At(i int) (name, value string, ok bool) {
	e := &f.list[i]
	if e.dead {
		return "", "", false
	}
	return f.str(e.nameOff, e.nameLen), f.str(e.valOff, e.valLen), true
}

// IDAt returns the id of the field in slot i.
func (f *Fields) IDAt(i int) ID { return f.list[i].id }

// Checked tells whether the field in slot i went through a parser's validation.
func (f *Fields) Checked(i int) bool { return f.list[i].checked }

// Has tells whether a well-known field is present.
func (f *Fields) Has(id ID) bool { return f.present&(1<<id) != 0 }

// IDs is a set of well-known ids.
type IDs uint64

// Set makes a set of ids.
func Set(ids ...ID) (s IDs) {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// Has tells whether id is in the set.
func (s IDs) Has(id ID) bool { return s>>id&1 != 0 }

// HasAny tells whether a field of the set may be present.
func (f *Fields) HasAny(s IDs) bool { return f.present&uint64(s) != 0 }

// Find returns the slot of the first field with id at or after slot from, or -1.
func (f *Fields) Find(id ID, from int) int {
	if f.present&(1<<id) == 0 {
		return -1
	}
	for i := from; i < len(f.list); i++ {
		if f.list[i].id == id && !f.list[i].dead {
			return i
		}
	}
	return -1
}

// ByID returns the first value of a well-known field.
func (f *Fields) ByID(id ID) (value string, ok bool) {
	if i := f.Find(id, 0); i >= 0 {
		e := &f.list[i]
		return f.str(e.valOff, e.valLen), true
	}
	return "", false
}

// Get returns the first value of the field with a lower-case name.
func (f *Fields) Get(lower string) (value string, ok bool) {
	if i := f.find(lower, 0); i >= 0 {
		e := &f.list[i]
		return f.str(e.valOff, e.valLen), true
	}
	return "", false
}

// Joined returns all values of a field, separated by commas, as RFC 9110 5.3
// lets a recipient combine them and Envoy's matchers see them.
func (f *Fields) Joined(lower string) (value string, ok bool) { return f.joined(IDOf(lower), lower) }

// joined is Joined for a name whose id is known.
func (f *Fields) joined(id ID, lower string) (value string, ok bool) {
	first := f.findNamed(id, lower, 0)
	if first < 0 {
		return "", false
	}
	next := f.findNamed(id, lower, first+1)
	e := f.list[first]
	if next < 0 {
		return f.str(e.valOff, e.valLen), true
	}
	start := len(f.arena)
	f.arena = append(f.arena, f.text(e.valOff, e.valOff+e.valLen)...)
	for ; next >= 0; next = f.findNamed(id, lower, next+1) {
		e = f.list[next]
		f.arena = append(f.arena, ',')
		f.arena = append(f.arena, f.text(e.valOff, e.valOff+e.valLen)...)
	}
	return f.str(uint32(start), uint32(len(f.arena)-start)), true
}

// find returns the slot of the first field with the name at or after from.
func (f *Fields) find(lower string, from int) int { return f.findNamed(IDOf(lower), lower, from) }

// findNamed is find for a name whose id is known.
func (f *Fields) findNamed(id ID, lower string, from int) int {
	if id != Other && id != XEnvoyOther && id != Fake {
		return f.Find(id, from)
	}
	if f.present&(1<<id) == 0 {
		return -1
	}
	for i := from; i < len(f.list); i++ {
		e := &f.list[i]
		if e.id == id && !e.dead && int(e.nameLen) == len(lower) &&
			EqualFold(f.str(e.nameOff, e.nameLen), lower) {
			return i
		}
	}
	return -1
}

// Add appends a field. Name and value are copied; an invalid one is refused
// when the message is serialised.
func (f *Fields) Add(name, value string) { f.add(name, value, IDOf(name)) }

// AddBytes is Add for a value in a buffer.
func (f *Fields) AddBytes(name string, value []byte) { f.Add(name, View(value)) }

// AddID appends a well-known field under its lower-case name.
func (f *Fields) AddID(id ID, value string) { f.add(idNames[id], value, id) }

func (f *Fields) add(name, value string, id ID) {
	nameOff := uint32(len(f.arena))
	f.arena = append(f.arena, name...)
	valOff := uint32(len(f.arena))
	f.arena = append(f.arena, value...)
	f.repeated |= f.present & (1 << id)
	f.append(field{
		nameOff: nameOff, nameLen: uint32(len(name)), valOff: valOff, valLen: uint32(len(value)), id: id,
	})
}

// Set replaces the first field with a lower-case name, in its place and under
// the name it was received with, and removes the others; it appends when there
// is none.
func (f *Fields) Set(lower, value string) { f.set(IDOf(lower), lower, value) }

// SetID is Set for a well-known field.
func (f *Fields) SetID(id ID, value string) { f.set(id, idNames[id], value) }

// SetIDBytes is SetID for a value in a buffer.
func (f *Fields) SetIDBytes(id ID, value []byte) { f.SetID(id, View(value)) }

func (f *Fields) set(id ID, lower, value string) {
	i := f.findNamed(id, lower, 0)
	if i < 0 {
		f.add(lower, value, id)
		return
	}
	for j := f.findNamed(id, lower, i+1); j >= 0; j = f.findNamed(id, lower, j+1) {
		f.kill(j)
	}
	f.SetAt(i, value)
}

// SetBytes is Set for a value in a buffer.
func (f *Fields) SetBytes(lower string, value []byte) { f.Set(lower, View(value)) }

// SetAt replaces the value in slot i.
func (f *Fields) SetAt(i int, value string) {
	off := uint32(len(f.arena))
	f.arena = append(f.arena, value...)
	e := &f.list[i]
	e.valOff, e.valLen, e.checked, e.line = off, uint32(len(value)), false, false
}

// Del removes every field with a lower-case name and tells how many there were.
func (f *Fields) Del(lower string) int {
	n := 0
	for i := f.find(lower, 0); i >= 0; i = f.find(lower, i+1) {
		f.kill(i)
		n++
	}
	if n > 0 {
		f.recount()
	}
	return n
}

// DelName is Del for a name in any case.
func (f *Fields) DelName(name string) {
	id := IDOf(name)
	for i := range f.list {
		e := &f.list[i]
		if e.id == id && !e.dead && EqualNames(f.str(e.nameOff, e.nameLen), name) {
			f.kill(i)
		}
	}
	f.recount()
}

// DelID removes every field with a well-known id; for XEnvoyOther the whole class.
func (f *Fields) DelID(id ID) {
	if !f.Has(id) {
		return
	}
	for i := f.Find(id, 0); i >= 0; i = f.Find(id, i+1) {
		f.kill(i)
	}
	f.present &^= 1 << id
}

// DelAt removes the field in slot i.
func (f *Fields) DelAt(i int) {
	if !f.list[i].dead {
		f.kill(i)
		f.recount()
	}
}

// CopyFrom replaces the content by a copy of src.
func (f *Fields) CopyFrom(src *Fields) {
	f.arena = append(f.arena[:0], src.arena...)
	f.list = append(f.list[:0], src.list...)
	f.present, f.live = src.present, src.live
}

// Stored is how much the fields have stored, for Rewind.
func (f *Fields) Stored() int { return len(f.arena) }

// Rewind gives back what was stored since Stored was n, as when values were joined to be
// read: who reads a message that lasts, again and again, must not make it grow. No field
// may have been added or set since, and no string of that time is valid any more.
func (f *Fields) Rewind(n int) { f.arena = f.arena[:n] }

// Store copies s into the arena and returns the copy, for values that must
// live as long as the message.
func (f *Fields) Store(s string) string {
	off := len(f.arena)
	f.arena = append(f.arena, s...)
	return f.str(uint32(off), uint32(len(s)))
}

// Store2 is Store of two strings joined.
func (f *Fields) Store2(a, b string) string {
	off := len(f.arena)
	f.arena = append(append(f.arena, a...), b...)
	return f.str(uint32(off), uint32(len(a)+len(b)))
}

// The parser's side: it notes fields by their offsets in the head it reads,
// then loads the head into the still empty arena in one copy.

// Note appends a validated field by offsets into the head that Load will bring. line
// tells that it stands there as HTTP/1 writes it: name, colon, space, value and CRLF.
func (f *Fields) Note(id ID, nameOff, nameLen, valOff, valLen int, line bool) {
	f.repeated |= f.present & (1 << id)
	f.append(field{
		nameOff: uint32(nameOff), nameLen: uint32(nameLen),
		valOff: uint32(valOff), valLen: uint32(valLen), id: id, checked: true, line: line,
	})
}

// Load copies the head that the noted offsets refer to. The arena must be empty.
func (f *Fields) Load(head []byte) { f.arena = append(f.arena[:0], head...) }

// AppendLines appends the fields from slot from on as HTTP/1 writes them, as far as they
// stand one after the other in the head that was loaded, just as they are to be written,
// and none is of the set except. It returns the slot where it stopped: often all that
// a message passes on is copied at once.
func (f *Fields) AppendLines(dst []byte, from int, except IDs) (out []byte, next int) {
	if from >= len(f.list) {
		return dst, from
	}
	start := f.list[from].nameOff
	end := start
	for next = from; next < len(f.list); next++ {
		e := &f.list[next]
		if !e.line || e.dead || e.nameOff != end || except.Has(e.id) {
			break
		}
		end = e.valOff + e.valLen + uint32(len("\r\n"))
	}
	return append(dst, f.text(start, end)...), next
}

// Span returns n loaded bytes from off, as Fields returns all its strings.
func (f *Fields) Span(off, n int) string { return f.str(uint32(off), uint32(n)) }

func (f *Fields) append(e field) {
	f.list = append(f.list, e)
	f.present |= 1 << e.id
	f.live++
}

// EqualNames compares field names, or other words of the protocol, without regard to the case of
// ASCII letters: those of Unicode that fold to one (U+017F, U+212A) are others, for rules as well.
func EqualNames(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

func (f *Fields) kill(i int) {
	f.list[i].dead = true
	f.live--
}

func (f *Fields) recount() {
	f.present = 0
	for i := range f.list {
		if !f.list[i].dead {
			f.present |= 1 << f.list[i].id
		}
	}
}

func (f *Fields) str(off, n uint32) string { return View(f.text(off, off+n)) }

// text is part of the arena. It panics beyond its end, where another message's bytes may
// still lie: a field that was noted has no text before Load.
func (f *Fields) text(from, to uint32) []byte { return f.arena[from:to:len(f.arena)] }

// View looks at bytes as a string without copying: the string changes when the
// bytes do, so it must not outlive them.
func View(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
