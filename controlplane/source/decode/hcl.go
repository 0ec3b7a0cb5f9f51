package decode

import (
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/scanner"
	"github.com/hashicorp/hcl/hcl/token"
)

// parseHCL parses HCL version 1, the language of Consul's files.
func parseHCL(data []byte) (docs []*Node, err error) {
	if line := tooDeep(data); line > 0 {
		return nil, &SyntaxError{line, fmt.Sprintf("nested more than %d deep", MaxDepth)}
	}
	// The parser panics on some input that is not HCL.
	defer func() {
		if r := recover(); r != nil {
			docs, err = nil, &SyntaxError{Reason: fmt.Sprintf("not HCL: %v", r)}
		}
	}()
	f, err := parser.Parse(data)
	if err != nil {
		var pos *parser.PosError
		if errors.As(err, &pos) {
			return nil, &SyntaxError{pos.Pos.Line, "not HCL: " + pos.Err.Error()}
		}
		return nil, &SyntaxError{Reason: "not HCL: " + err.Error()}
	}
	list, ok := f.Node.(*ast.ObjectList)
	if !ok {
		return nil, &SyntaxError{Reason: "not HCL: no attributes or blocks"}
	}
	if t := lastToken(data); t.Type != token.EOF && !endsAt(list, t.Pos) {
		return nil, &SyntaxError{t.Pos.Line, "not HCL: the text ends in the middle of a value"}
	}
	n, err := fromList(list, 1)
	if err != nil {
		return nil, err
	}
	return []*Node{n}, nil
}

// lastToken is what the text ends with, comments and commas aside.
func lastToken(data []byte) token.Token {
	s := scanner.New(data)
	s.Error = func(token.Pos, string) {} // the parser reported it
	last := token.Token{Type: token.EOF}
	for {
		switch t := s.Scan(); t.Type {
		case token.EOF:
			return last
		case token.COMMENT, token.COMMA:
		default:
			last = t
		}
	}
}

// endsAt reports whether the last item ends where the text does. The parser
// takes `key =` at the end of the text for nothing at all, and a file that is
// cut off there must not pass for a whole one.
func endsAt(list *ast.ObjectList, pos token.Pos) bool {
	if len(list.Items) == 0 {
		return false
	}
	switch v := list.Items[len(list.Items)-1].Val.(type) {
	case *ast.LiteralType:
		return v.Token.Pos == pos
	case *ast.ObjectType:
		return v.Rbrace == pos
	case *ast.ListType:
		return v.Rbrack == pos
	}
	return false
}

// tooDeep returns the line where brackets nest too deep, or 0. The parser
// recurses without a bound, and a stack that overflows cannot be recovered
// from. Brackets inside strings count too, which a real file survives.
func tooDeep(data []byte) int {
	depth, line := 0, 1
	for _, b := range data {
		switch b {
		case '\n':
			line++
		case '{', '[':
			if depth++; depth > MaxDepth {
				return line
			}
		case '}', ']':
			depth = max(0, depth-1)
		}
	}
	return 0
}

// fromList makes an object of attributes and blocks. A block written several
// times is a list; an attribute written several times is a mistake.
func fromList(list *ast.ObjectList, line int) (*Node, error) {
	o := &Object{}
	blocks := map[string]*Node{} // the first node of each repeated block
	for _, item := range list.Items {
		key, n, err := fromItem(item)
		if err != nil {
			return nil, err
		}
		first, again := blocks[key]
		switch {
		case item.Assign.IsValid():
			o.add(key, n) // a second one is found as a duplicate when decoding
		case !again:
			blocks[key] = n
			o.add(key, n)
		default:
			if _, isObject := first.Value.(*Object); isObject {
				first.Value = []*Node{{first.Line, first.Value}}
			}
			first.Value = append(first.Value.([]*Node), n)
		}
	}
	return &Node{Line: line, Value: o}, nil
}

func fromItem(item *ast.ObjectItem) (string, *Node, error) {
	if len(item.Keys) == 0 {
		return "", nil, &SyntaxError{item.Pos().Line, "not HCL: a value without a name"}
	}
	n, err := fromAST(item.Val)
	if err != nil {
		return "", nil, err
	}
	// A label, as in `service "web" {`, is one more level.
	for i := len(item.Keys) - 1; i > 0; i-- {
		o := &Object{}
		o.add(keyText(item.Keys[i]), n)
		n = &Node{Line: item.Keys[i].Pos().Line, Value: o}
	}
	n.Line = item.Keys[0].Pos().Line
	return keyText(item.Keys[0]), n, nil
}

func keyText(k *ast.ObjectKey) string {
	if s, ok := k.Token.Value().(string); ok {
		return s
	}
	return k.Token.Text
}

func fromAST(n ast.Node) (*Node, error) {
	line := n.Pos().Line
	switch v := n.(type) {
	case *ast.LiteralType:
		return fromLiteral(v.Token)
	case *ast.ObjectType:
		return fromList(v.List, line)
	case *ast.ListType:
		l := []*Node{}
		for _, e := range v.List {
			c, err := fromAST(e)
			if err != nil {
				return nil, err
			}
			l = append(l, c)
		}
		return &Node{line, l}, nil
	}
	return nil, &SyntaxError{line, fmt.Sprintf("not HCL: unexpected %T", n)}
}

func fromLiteral(t token.Token) (*Node, error) {
	switch t.Type {
	case token.STRING, token.HEREDOC, token.BOOL, token.NUMBER, token.FLOAT:
		return &Node{t.Pos.Line, t.Value()}, nil
	}
	return nil, &SyntaxError{t.Pos.Line, fmt.Sprintf("not HCL: unexpected %s", t.Text)}
}
