package route

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Facts is what is known of an exchange so far, for values with operators. It is
// asked only where there is one.
type Facts interface{ Record() *telemetry.Record }

// Mutations are compiled steps on a message's headers, in order. Immutable.
type Mutations struct {
	steps   []mutation
	singles message.IDs
}

// None tells whether there is no step.
func (ms *Mutations) None() bool { return len(ms.steps) == 0 }

type mutation struct {
	kind   mutationKind
	name   string // as it is to be sent
	lower  string
	value  Value
	match  *StringMatch
	action AppendAction
	empty  bool // add an empty value too
}

type mutationKind uint8

const (
	removeHeader mutationKind = iota
	addHeader
	removeMatching
)

// Value is a text with %OPERATORS%, compiled. The zero Value is empty. Immutable.
type Value struct {
	literal string
	format  *telemetry.Format // nil when literal is all
}

// NewValue compiles a text. A text without a percent sign is a literal.
func NewValue(text string) (Value, error) {
	if !strings.Contains(text, "%") {
		return Value{literal: text}, nil
	}
	f, err := telemetry.ParseFormat(text)
	return Value{format: f}, err
}

// In returns the value for an exchange. It may lie in scratch, which it extends.
func (v *Value) In(facts Facts, scratch *[]byte) string {
	if v.format == nil {
		return v.literal
	}
	*scratch = v.format.AppendHeader((*scratch)[:0], facts.Record())
	return message.View(*scratch)
}

// NewMutations compiles steps. What is added to one of singles, which what they change has once,
// is a part of its value.
func NewMutations(steps []HeaderMutation, singles message.IDs) (Mutations, error) {
	out := Mutations{singles: singles}
	for i := range steps {
		s := &steps[i]
		switch {
		case s.Add != nil:
			m, err := newAdd(s.Add)
			if err != nil {
				return Mutations{}, err
			}
			out.steps = append(out.steps, m)
		case s.RemoveIf != nil:
			out.steps = append(out.steps, mutation{kind: removeMatching, match: s.RemoveIf})
		default:
			out.steps = append(out.steps, mutation{kind: removeHeader, lower: s.Remove})
		}
	}
	return out, nil
}

func newAdd(a *HeaderAdd) (mutation, error) {
	v, err := NewValue(a.Value)
	if err != nil {
		return mutation{}, fmt.Errorf("header %s: %w", a.Name, err)
	}
	empty := a.KeepEmpty || v.literal != "" // what is white space alone is added too
	v.literal = strings.Trim(v.literal, blanks)
	return mutation{
		kind: addHeader, name: a.Name, lower: strings.ToLower(a.Name), value: v, action: a.Action, empty: empty,
	}, nil
}

// blanks around a value are no part of it (RFC 9110 5.5). Over HTTP/2 they would make a
// message malformed (RFC 9113 8.2.1), which is not sent.
const blanks = " \t"

// Changes are what one level does to a message's headers at once. Immutable.
type Changes struct {
	remove  []string // lower case
	add     []mutation
	singles message.IDs
}

// NewChanges compiles a level's removals, whose names are lower case, and additions. What is
// added to one of singles, which the message has once, is a part of its value.
func NewChanges(remove []string, add []HeaderAdd, singles message.IDs) (out Changes, err error) {
	out.remove, out.singles = remove, singles
	for i := range add {
		m, err := newAdd(&add[i])
		if err != nil {
			return Changes{}, err
		}
		out.add = append(out.add, m)
	}
	return out, nil
}

// Apply carries the changes out: removals first; then every value is made, and every
// condition judged, of the headers that are left; then come overwrites, then additions.
// No change sees another of its level, as in Envoy. Values are made in scratch.
func (c *Changes) Apply(f *message.Fields, facts Facts, scratch *[]byte) {
	for _, name := range c.remove {
		f.Del(name)
	}
	if len(c.add) == 0 {
		return
	}
	b := (*scratch)[:0]
	for i := range c.add {
		b = c.add[i].appendVerdict(b, f, facts)
	}
	*scratch = b
	c.write(f, b, overwrite)
	c.write(f, b, add)
	f.JoinSingles(c.singles)
}

// verdict is what becomes of an addition.
type verdict = byte

const (
	skip verdict = iota
	overwrite
	add
)

// valueLength is what the length of a formatted value takes in front of it.
const valueLength = 4

// appendVerdict appends the verdict on m and, where there is one and m's value is no
// literal, the value behind its length.
func (m *mutation) appendVerdict(b []byte, f *message.Fields, facts Facts) []byte {
	v := m.verdict(f)
	if m.value.format == nil {
		if m.value.literal == "" && !m.empty {
			v = skip
		}
		return append(b, v)
	}
	if v == skip {
		return append(b, skip)
	}
	start := len(b)
	b = m.value.format.AppendHeader(append(b, v, 0, 0, 0, 0), facts.Record())
	value := b[start+1+valueLength:]
	if len(value) == 0 && !m.empty {
		return append(b[:start], skip)
	}
	n := copy(value, bytes.Trim(value, blanks))
	binary.NativeEndian.PutUint32(b[start+1:], uint32(n))
	return b[:start+1+valueLength+n]
}

func (m *mutation) verdict(f *message.Fields) verdict {
	switch m.action {
	case AppendIfExistsOrAdd:
		return add
	case OverwriteIfExistsOrAdd:
		return overwrite
	}
	switch _, exists := f.Get(m.lower); {
	case m.action == AddIfAbsent && !exists:
		return add
	case m.action == OverwriteIfExists && exists:
		return overwrite
	}
	return skip
}

// write carries out the additions of one verdict.
func (c *Changes) write(f *message.Fields, verdicts []byte, which verdict) {
	for i := range c.add {
		m, v := &c.add[i], verdicts[0]
		verdicts = verdicts[1:]
		value := m.value.literal
		if v != skip && m.value.format != nil {
			n := valueLength + int(binary.NativeEndian.Uint32(verdicts))
			value, verdicts = message.View(verdicts[valueLength:n]), verdicts[n:]
		}
		switch {
		case v != which:
		case v == add:
			f.Add(m.name, value)
		default:
			m.overwrite(f, value)
		}
	}
}

// levelMutations are one level's for both directions.
type levelMutations struct{ request, response Changes }

// compileLevel returns nil where a level changes nothing.
func compileLevel(h *HeaderMutations) (*levelMutations, error) {
	if h == nil || len(h.RequestAdd)+len(h.RequestRemove)+len(h.ResponseAdd)+len(h.ResponseRemove) == 0 {
		return nil, nil
	}
	out := &levelMutations{}
	var err error
	if out.request, err = NewChanges(h.RequestRemove, h.RequestAdd, message.RequestSingles); err != nil {
		return nil, err
	}
	out.response, err = NewChanges(h.ResponseRemove, h.ResponseAdd, message.ResponseSingles)
	return out, err
}

// Apply carries the steps out one after the other. Values are made with facts, in scratch.
func (ms Mutations) Apply(f *message.Fields, facts Facts, scratch *[]byte) {
	for i := range ms.steps {
		m := &ms.steps[i]
		switch m.kind {
		case removeHeader:
			f.Del(m.lower)
		case removeMatching:
			removeIf(f, m.match)
		default:
			if v := m.value.In(facts, scratch); v != "" || m.empty {
				m.add(f, strings.Trim(v, blanks))
			}
		}
	}
	f.JoinSingles(ms.singles)
}

// Settled returns steps whose values are made, with facts and in scratch: Apply asks nobody
// for them any more. Steps that are literal are returned as they are.
func (ms Mutations) Settled(facts Facts, scratch *[]byte) Mutations {
	if !slices.ContainsFunc(ms.steps, func(m mutation) bool { return m.value.format != nil }) {
		return ms
	}
	out := Mutations{slices.Clone(ms.steps), ms.singles}
	for i := range out.steps {
		out.steps[i].value = Value{literal: strings.Clone(out.steps[i].value.In(facts, scratch))}
	}
	return out
}

func (m *mutation) add(f *message.Fields, value string) {
	switch m.verdict(f) {
	case add:
		f.Add(m.name, value)
	case overwrite:
		m.overwrite(f, value)
	}
}

// overwrite leaves one field of the name, where the first was.
func (m *mutation) overwrite(f *message.Fields, value string) {
	if _, ok := f.Get(m.lower); ok {
		f.Set(m.lower, value)
	} else {
		f.Add(m.name, value)
	}
}

func removeIf(f *message.Fields, match *StringMatch) {
	var buf [64]byte
	for i := range f.Slots() {
		if name, _, ok := f.At(i); ok && !frames(f.IDAt(i)) && match.Match(message.View(appendLower(buf[:0], name))) {
			f.DelAt(i)
		}
	}
}

// frames tells the fields that a matcher must not remove: the message would be
// another.
func frames(id message.ID) bool {
	switch id {
	case message.Host, message.ContentLength, message.TransferEncoding, message.Connection, message.TE,
		message.Upgrade, message.Expect:
		return true
	}
	return false
}
