package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// SyntaxError is text that is not what its extension says.
type SyntaxError struct {
	Line   int
	Reason string
}

func (e *SyntaxError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return e.Reason
}

// Extensions are the endings of the files that are read.
var Extensions = []string{".hcl", ".json", ".yaml", ".yml"}

// Parse parses a file by its ending and returns its documents: one, or for YAML
// as many as there are; a list at the top counts as its elements.
func Parse(name string, data []byte) ([]*Node, error) {
	if len(data) > MaxBytes {
		return nil, &SyntaxError{Reason: fmt.Sprintf("%d bytes; a file may have at most %d", len(data), MaxBytes)}
	}
	var docs []*Node
	var err error
	switch strings.ToLower(filepath.Ext(name)) {
	case ".hcl":
		docs, err = parseHCL(data)
	case ".json":
		docs, err = parseJSON(data)
	case ".yaml", ".yml":
		docs, err = parseYAML(data)
	default:
		return nil, &SyntaxError{Reason: "unknown ending; use " + strings.Join(Extensions, ", ")}
	}
	if err != nil {
		return nil, err
	}
	var out []*Node
	for _, d := range docs {
		if d.Value != nil {
			out = append(out, d.List()...)
		}
	}
	return out, nil
}

type jsonParser struct {
	dec  *json.Decoder
	data []byte
	// line at offset at, counted as far as was needed.
	at   int64
	line int
}

func parseJSON(data []byte) ([]*Node, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	p := &jsonParser{dec: json.NewDecoder(bytes.NewReader(data)), data: data, line: 1}
	p.dec.UseNumber()
	n, err := p.value(0)
	if err != nil {
		return nil, p.fail(err)
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, p.fail(errors.New("more text after the end of the value"))
	}
	return []*Node{n}, nil
}

func (p *jsonParser) fail(err error) error {
	var syntax *SyntaxError
	if errors.As(err, &syntax) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the text ends in the middle of a value")
	}
	return &SyntaxError{Line: p.here(), Reason: "not JSON: " + err.Error()}
}

// here is the line of the token read last.
func (p *jsonParser) here() int {
	to := min(p.dec.InputOffset(), int64(len(p.data)))
	p.line += bytes.Count(p.data[p.at:to], []byte{'\n'})
	p.at = to
	return p.line
}

func (p *jsonParser) value(depth int) (*Node, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("nested more than %d deep", MaxDepth)
	}
	tok, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	n := &Node{Line: p.here()}
	switch v := tok.(type) {
	case json.Delim:
		if v == '[' {
			n.Value, err = p.list(depth)
		} else {
			n.Value, err = p.object(depth)
		}
	case json.Number:
		n.Value, err = number(v.String())
	default:
		n.Value = v
	}
	return n, err
}

func (p *jsonParser) list(depth int) (any, error) {
	l := []*Node{}
	for p.dec.More() {
		n, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		l = append(l, n)
	}
	_, err := p.dec.Token()
	return l, err
}

func (p *jsonParser) object(depth int) (any, error) {
	o := &Object{}
	for p.dec.More() {
		tok, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		k, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("%v is not a key", tok)
		}
		line := p.here()
		n, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.Line = line
		o.add(k, n)
	}
	_, err := p.dec.Token()
	return o, err
}

func parseYAML(data []byte) (out []*Node, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, &SyntaxError{Reason: "not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
		}
		n, err := fromYAML(&doc, 0)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
}

func fromYAML(y *yaml.Node, depth int) (*Node, error) {
	n := &Node{Line: y.Line}
	if depth > MaxDepth {
		return nil, &SyntaxError{y.Line, fmt.Sprintf("nested more than %d deep", MaxDepth)}
	}
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) == 0 {
			return n, nil
		}
		return fromYAML(y.Content[0], depth)
	case yaml.SequenceNode:
		l := []*Node{}
		for _, c := range y.Content {
			v, err := fromYAML(c, depth+1)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		n.Value = l
		return n, nil
	case yaml.MappingNode:
		o := &Object{}
		for i := 0; i+1 < len(y.Content); i += 2 {
			k := y.Content[i]
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
				return nil, &SyntaxError{k.Line, "a key must be a plain string"}
			}
			v, err := fromYAML(y.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			v.Line = k.Line
			o.add(k.Value, v)
		}
		n.Value = o
		return n, nil
	case yaml.ScalarNode:
		return n, scalarYAML(y, n)
	}
	// An alias may stand for an exponential amount of text.
	return nil, &SyntaxError{y.Line, "anchors and aliases are not supported; write the value out"}
}

func scalarYAML(y *yaml.Node, n *Node) error {
	var err error
	switch tag := y.ShortTag(); tag {
	case "!!str", "!!timestamp":
		n.Value = y.Value
	case "!!null":
	case "!!bool":
		var b bool
		err = y.Decode(&b)
		n.Value = b
	case "!!int":
		n.Value, err = strconv.ParseInt(strings.ReplaceAll(y.Value, "_", ""), 0, 64)
	case "!!float":
		n.Value, err = number(y.Value)
	default:
		return &SyntaxError{y.Line, "values tagged " + tag + " are not supported"}
	}
	if err != nil {
		return &SyntaxError{y.Line, fmt.Sprintf("%q: %s", y.Value, err)}
	}
	return nil
}
