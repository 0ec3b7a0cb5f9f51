package route

import (
	"fmt"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Facts is what is known of an exchange so far, for values with operators. It is
// asked only where there is one.
type Facts interface{ Record() *telemetry.Record }

// Mutations are compiled steps on a message's headers, in order. Immutable.
type Mutations []mutation

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

// NewMutations compiles steps.
func NewMutations(steps []HeaderMutation) (Mutations, error) {
	var out Mutations
	for i := range steps {
		s := &steps[i]
		switch {
		case s.Add != nil:
			m, err := newAdd(s.Add)
			if err != nil {
				return nil, err
			}
			out = append(out, m)
		case s.RemoveIf != nil:
			out = append(out, mutation{kind: removeMatching, match: s.RemoveIf})
		default:
			out = append(out, mutation{kind: removeHeader, lower: s.Remove})
		}
	}
	return out, nil
}

func newAdd(a *HeaderAdd) (mutation, error) {
	v, err := NewValue(a.Value)
	if err != nil {
		return mutation{}, fmt.Errorf("header %s: %w", a.Name, err)
	}
	return mutation{
		kind: addHeader, name: a.Name, lower: strings.ToLower(a.Name), value: v, action: a.Action, empty: a.KeepEmpty,
	}, nil
}

// levelMutations are one level's for both directions.
type levelMutations struct{ request, response Mutations }

// compileLevel returns nil where a level changes nothing.
func compileLevel(h *HeaderMutations) (*levelMutations, error) {
	if h == nil || len(h.RequestAdd)+len(h.RequestRemove)+len(h.ResponseAdd)+len(h.ResponseRemove) == 0 {
		return nil, nil
	}
	out := &levelMutations{}
	var err error
	if out.request, err = removeThenAdd(h.RequestRemove, h.RequestAdd); err != nil {
		return nil, err
	}
	out.response, err = removeThenAdd(h.ResponseRemove, h.ResponseAdd)
	return out, err
}

func removeThenAdd(remove []string, add []HeaderAdd) (out Mutations, err error) {
	for _, n := range remove {
		out = append(out, mutation{kind: removeHeader, lower: n})
	}
	for i := range add {
		m, err := newAdd(&add[i])
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Apply carries the steps out. Values are made with facts, in scratch.
func (ms Mutations) Apply(f *message.Fields, facts Facts, scratch *[]byte) {
	for i := range ms {
		m := &ms[i]
		switch m.kind {
		case removeHeader:
			f.Del(m.lower)
		case removeMatching:
			removeIf(f, m.match)
		default:
			if v := m.value.In(facts, scratch); v != "" || m.empty {
				m.add(f, v)
			}
		}
	}
}

func (m *mutation) add(f *message.Fields, value string) {
	switch m.action {
	case AppendIfExistsOrAdd:
		f.Add(m.name, value)
		return
	case OverwriteIfExistsOrAdd:
		if _, ok := f.Get(m.lower); ok {
			f.Set(m.lower, value)
		} else {
			f.Add(m.name, value)
		}
		return
	}
	switch _, exists := f.Get(m.lower); {
	case m.action == AddIfAbsent && !exists:
		f.Add(m.name, value)
	case m.action == OverwriteIfExists && exists:
		f.Set(m.lower, value)
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
		message.Trailer, message.Upgrade, message.Expect:
		return true
	}
	return false
}
