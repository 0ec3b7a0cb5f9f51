package config

import (
	"errors"
	"regexp"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// pem is how a key begins that was pasted to where it does not belong.
const pem = "-----BEGIN"

// pasted tells whether a text is a key or a certificate where a name is meant. It is no name
// then, and must be in no message.
func pasted(name string) bool {
	return strings.Contains(name, pem) || strings.ContainsAny(name, "\n\r\x00")
}

// undisclosed are what the decoders of JSON and YAML say of a text, with the text, and what
// is to be said instead. A text may be anything: a token that begins with * is an alias to YAML.
var undisclosed = []struct {
	reason  *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`^unexpected token (?s:.*)$`), "unexpected text, or a value of another type"},
	{regexp.MustCompile(`^(invalid value for \w+ (?:field [^:]*|key)): (?s:.*)$`), "$1"},
	{regexp.MustCompile(`^(invalid google\.protobuf\.Duration value) (?s:.*)$`), "$1; write seconds, as in 1.5s"},
	{regexp.MustCompile(`^(invalid google\.protobuf\.\w+(?: value)?):? (?s:.*)$`), "$1"},
	{regexp.MustCompile(`^(google\.protobuf\.\w+ value out of range): (?s:.*)$`), "$1"},
	{regexp.MustCompile(`^(google\.protobuf\.FieldMask\.paths contains [^:"]*)(?s:.*)$`), "$1"},
	{regexp.MustCompile(`^(duplicate map key|@type field value is not a string)(?s:.*)$`), "$1"},
	{regexp.MustCompile(`^invalid map key: (?s:.*)$`), "invalid map key"},
	{regexp.MustCompile(`^unsupported map key of type: (?s:.*)$`), "a name of a field that is no text"},
	{regexp.MustCompile(`^unknown anchor '(?s:.*)' referenced$`), "unknown anchor; quote a text that begins with *"},
	{regexp.MustCompile(`^anchor '(?s:.*)' value contains itself$`), "the value of an anchor contains itself"},
	{regexp.MustCompile("^(cannot decode \\S+) `(?s:.*)` (as a .*)$"), "$1 $2"},
}

// setTwice is what a YAML decoder says of a name that is there twice, as often as there are such.
var setTwice = regexp.MustCompile(`key ("(?:[^"\\]|\\.)*"|[^"\s]+) already set in map`)

// unwritten is a decoder's reason without the text that it is about, which may be a key or
// a token in the wrong place. Names of fields are said.
func unwritten(reason string) string {
	for _, u := range undisclosed {
		if u.reason.MatchString(reason) {
			return u.reason.ReplaceAllString(reason, u.instead)
		}
	}
	return setTwice.ReplaceAllStringFunc(reason, func(said string) string {
		if isField(strings.Trim(setTwice.FindStringSubmatch(said)[1], `"`)) {
			return said
		}
		return "a key is already set in its map"
	})
}

var capital = regexp.MustCompile(`[A-Z]`)

// isField tells whether a name is that of a field that the sidecar knows, as Protobuf or JSON
// spells it.
func isField(name string) bool {
	spelt := capital.ReplaceAllStringFunc(name, func(c string) string { return "_" + strings.ToLower(c) })
	for _, r := range fields {
		if r.of(protoreflect.Name(spelt)) != unsupported {
			return true
		}
	}
	return false
}

// discreet cuts an error at a key that has become a part of it.
func discreet(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	before, _, quoted := strings.Cut(text, pem)
	if !quoted {
		return err
	}
	return errors.New(strings.TrimRight(before, ` ."'`) + ": PEM is in the place of a name")
}
