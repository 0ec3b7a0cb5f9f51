package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxNesting is Envoy's bound on messages, lists and mappings within each other. Paths and
// positions cost as much as they are deep: without a bound 400 KB were gigabytes.
const maxNesting = 100

// marker begins or ends a document of several, as a directive does.
var marker = regexp.MustCompile(`(?m)^(?:(?:---|\.\.\.)(?:\s|$)|%)`)

// foreign are YAML's ends of lines that neither Go's (?m) nor its \s know; \r\n is one for both.
var foreign = regexp.MustCompile(`\r(?:[^\n]|$)|[\x{85}\x{2028}\x{2029}]`)

// leftmost is a text whose first line that says anything is a key with nothing before it. A
// mapping that begins there goes on to the next marker: no line is further to the left.
var leftmost = regexp.MustCompile(`\A(?:[ \t]*(?:#[^\n]*)?\r?\n)*["'A-Za-z]`)

// plainlyOne tells whether a text is one document at a glance, and has no aliases.
func plainlyOne(text []byte) bool {
	return leftmost.Match(text) && !bytes.ContainsRune(text, '&') && !marker.Match(text) && !foreign.Match(text)
}

var errGoesOn = errors.New("goes on behind the end of its first document; write one")

// unclear is the fault of a text whose first document may be right for all that: the decoder
// looks ahead. Whoever can read that document would read a part.
type unclear struct{ error }

// oneDocument refuses a text of which a part would be lost without a word, what follows the
// first document, and one that aliases make larger than a file may be. An error that is
// unclear is one only where another decoder finds none.
func oneDocument(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("is not UTF-8")
	}
	text := bytes.TrimPrefix(b, []byte("\uFEFF"))
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		if json.Valid(text) {
			return nil
		}
	} else if plainlyOne(text) {
		return nil
	}
	docs := yaml.NewDecoder(bytes.NewReader(text))
	for first := true; ; first = false {
		var doc yaml.Node
		switch err := docs.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && first:
			return unclear{errGoesOn}
		case err != nil, !first && !empty(&doc):
			return errGoesOn
		}
		if budget := maxBootstrap; !affordable(&doc, &budget, 0) {
			return fmt.Errorf("its aliases make it longer than %d bytes, or deeper than %d levels", maxBootstrap, maxNesting)
		}
	}
}

// empty tells whether a document says nothing.
func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || len(doc.Content) == 1 && doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Value == ""
}

// affordable tells whether a node costs no more than is left, with what its aliases stand
// for as often as they stand for it.
func affordable(n *yaml.Node, budget *int, depth int) bool {
	if n == nil || depth > maxNesting+1 { // a document is a level of its own
		return n == nil
	}
	if *budget -= 1 + len(n.Value); *budget < 0 {
		return false
	}
	if n.Kind == yaml.AliasNode {
		return affordable(n.Alias, budget, depth)
	}
	for _, child := range n.Content {
		if !affordable(child, budget, depth+1) {
			return false
		}
	}
	return true
}

// nested tells whether nothing stands deeper than so many levels.
func nested(v any, levels int) bool {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if levels == 0 || !nested(e, levels-1) {
				return false
			}
		}
	case map[string]any:
		for _, e := range v {
			if levels == 0 || !nested(e, levels-1) {
				return false
			}
		}
	}
	return true
}
