package config

import (
	"errors"
	"regexp"
	"strings"
)

// pem is how a key begins that was pasted to where it does not belong.
const pem = "-----BEGIN"

// pasted tells whether a text is a key or a certificate where a name is meant. It is no name
// then, and must be in no message.
func pasted(name string) bool {
	return strings.Contains(name, pem) || strings.ContainsAny(name, "\n\r\x00")
}

var (
	// mistyped are what a JSON decoder says of a text, the text at the end.
	mistyped = regexp.MustCompile(`^(unexpected token|invalid value for (?:string|bytes) field [^:]*:) (?s:.*)$`)
	// badKey is what a YAML decoder says of a mapping or list that is the name of a field,
	// all of it at the end.
	badKey = regexp.MustCompile(`^invalid map key: (?s:.*)$`)
)

// unwritten is a decoder's reason without the text that it is about, which may be a key or
// a token in the wrong place.
func unwritten(reason string) string {
	if m := mistyped.FindStringSubmatch(reason); m != nil {
		if strings.HasPrefix(m[1], "unexpected") {
			return "unexpected text, or a value of another type"
		}
		return strings.TrimSuffix(m[1], ":")
	}
	return badKey.ReplaceAllString(reason, "invalid map key")
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
