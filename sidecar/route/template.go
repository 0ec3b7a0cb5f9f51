package route

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// The limits of a path template are Envoy's.
const (
	maxTemplateVariables    = 5
	maxTemplateVariableName = 16
)

// segmentChars are what a literal segment of a template may hold (RFC 3986 3.3 pchar,
// without the asterisk and the equals sign, which have meanings of their own here). In
// a path they have none: a wildcard takes wildcardChars, all that a target may hold, or a rule
// would not see /admin/x=y or /admin/x|y.
const (
	segmentChars  = `a-zA-Z0-9\-._~%!$&'()+,;:@`
	wildcardChars = segmentChars + "*=|^`{}\\[\\]\\\\\"<>"
	// notLiteral is one of them that no literal has. Bytes above ASCII, which HTTP/2 may bring, are
	// matched as it: the same wildcards take them, at the same places.
	notLiteral = '|'
)

var (
	templateLiteral  = regexp.MustCompile(`\A[` + segmentChars + `=]+\z`)
	rewriteLiteral   = regexp.MustCompile(`\A[` + segmentChars + `=*/]+\z`)
	templateVariable = regexp.MustCompile(`\A[a-zA-Z][a-zA-Z0-9_]*\z`)
	templateText     = regexp.MustCompile(`\A/[[:graph:]]*\z`)
)

// Template is a compiled URI template (envoy.path.match.uri_template): literals,
// "*" for a segment, "**" for any number of them, {name}, {name=*/x/**}, literals
// around a variable, and a suffix after the last wildcard. Immutable.
type Template struct {
	text string
	re   *regexp.Regexp
}

// templateParser reads a template and writes the regular expression for it.
type templateParser struct {
	out  strings.Builder
	seen map[string]bool
	deep bool // "**" was there: no wildcard may follow
}

// NewTemplate compiles a template.
func NewTemplate(text string) (*Template, error) {
	if !templateText.MatchString(text) {
		return nil, fmt.Errorf("path template %q: must begin with a slash and hold printable ASCII only", text)
	}
	p := templateParser{seen: map[string]bool{}}
	if err := p.path(text[1:]); err != nil {
		return nil, fmt.Errorf("path template %q: %w", text, err)
	}
	re, err := Regex(p.out.String())
	if err != nil {
		return nil, fmt.Errorf("path template %q: %w", text, err)
	}
	return &Template{text, re}, nil
}

// Match tells whether a path without query matches.
func (t *Template) Match(path string) bool { return t.re.MatchString(inASCII(path)) }

// inASCII is a path as templates see it.
func inASCII(path string) string {
	if isASCII(path) {
		return path
	}
	b := []byte(path)
	for i, c := range b {
		if c >= utf8.RuneSelf {
			b[i] = notLiteral
		}
	}
	return string(b)
}

// String is the template as configured.
func (t *Template) String() string { return t.text }

// MarshalText shows the template as configured.
func (t *Template) MarshalText() ([]byte, error) { return []byte(t.text), nil }

func (p *templateParser) path(rest string) (err error) {
	p.out.WriteByte('/')
	for rest != "" {
		if rest[0] == '*' {
			rest, err = p.wildcard(rest)
			if err == nil && rest != "" && rest[0] != '/' {
				if rest, err = p.literal(rest); err == nil && rest != "" {
					err = errors.New("nothing may follow a suffix")
				}
			}
		} else {
			rest, err = p.segment(rest)
		}
		if err != nil || rest == "" {
			return err
		}
		p.out.WriteByte('/')
		rest = rest[1:]
	}
	return nil
}

// segment reads a literal, or a variable and the literals around it.
func (p *templateParser) segment(s string) (rest string, err error) {
	rest = s
	if rest[0] != '{' {
		if rest, err = p.literal(rest); err != nil || rest == "" || rest[0] == '/' {
			return rest, err
		}
	}
	if rest, err = p.variable(rest); err != nil || rest == "" || rest[0] == '/' {
		return rest, err
	}
	if rest, err = p.literal(rest); err == nil && rest != "" && rest[0] != '/' {
		err = errors.New("a segment has one variable at most")
	}
	return rest, err
}

func (p *templateParser) wildcard(s string) (rest string, err error) {
	if p.deep {
		return "", errors.New("no wildcard may follow **")
	}
	if rest, p.deep = strings.CutPrefix(s, "**"); p.deep {
		p.out.WriteString("[" + wildcardChars + "/]*")
		return rest, nil
	}
	p.out.WriteString("[" + wildcardChars + "]+")
	return s[1:], nil
}

// literal reads up to the end of a segment, or to a variable in it.
func (p *templateParser) literal(s string) (rest string, err error) {
	n := strings.IndexByte(s, '/')
	if n < 0 {
		n = len(s)
	}
	if i := strings.IndexByte(s[:n], '{'); i >= 0 && strings.IndexByte(s[i:n], '}') > 0 {
		n = i
	}
	if strings.Contains(s[:n], "*") {
		return "", fmt.Errorf("%q: an asterisk stands at the beginning of a segment only", s[:n])
	}
	if !templateLiteral.MatchString(s[:n]) {
		return "", fmt.Errorf("%q is no literal segment", s[:n])
	}
	p.out.WriteString(regexp.QuoteMeta(s[:n]))
	return s[n:], nil
}

func (p *templateParser) variable(s string) (rest string, err error) {
	inner, rest, ok := strings.Cut(s[1:], "}")
	if !ok {
		return "", errors.New("a variable has no closing brace")
	}
	name, match, matched := strings.Cut(inner, "=")
	switch {
	case !templateVariable.MatchString(name) || len(name) > maxTemplateVariableName:
		return "", fmt.Errorf("%q is no name of a variable", name)
	case p.seen[name]:
		return "", fmt.Errorf("variable %q is there twice", name)
	case len(p.seen) == maxTemplateVariables:
		return "", fmt.Errorf("has more than %d variables", maxTemplateVariables)
	}
	p.seen[name] = true
	p.out.WriteString("(?P<" + name + ">")
	if !matched {
		match = "*"
	}
	for {
		if match != "" && match[0] == '*' {
			match, err = p.wildcard(match)
		} else {
			match, err = p.literal(match)
		}
		if err != nil {
			return "", fmt.Errorf("variable %q: %w", name, err)
		}
		if match == "" {
			break
		}
		if match[0] != '/' {
			return "", fmt.Errorf("variable %q: %q is not a whole segment", name, match)
		}
		p.out.WriteByte('/')
		match = match[1:]
	}
	p.out.WriteByte(')')
	return rest, nil
}

// TemplateRewrite makes a new path of the variables of a match's template
// (envoy.path.rewrite.uri_template). Immutable.
type TemplateRewrite struct {
	text  string
	from  *Template
	parts []templatePart
}

type templatePart struct {
	literal string
	group   int // of the template's expression, when literal is empty
}

// NewTemplateRewrite compiles a rewrite that uses the variables of from.
func NewTemplateRewrite(text string, from *Template) (*TemplateRewrite, error) {
	fail := func(format string, args ...any) (*TemplateRewrite, error) {
		return nil, fmt.Errorf("path template rewrite %q: "+format, append([]any{text}, args...)...)
	}
	if !templateText.MatchString(text) {
		return fail("must begin with a slash and hold printable ASCII only")
	}
	if strings.Contains(text, "//") {
		return fail("has an empty segment")
	}
	out := &TemplateRewrite{text: text, from: from}
	for rest := text; rest != ""; {
		literal, after, variable := strings.Cut(rest, "{")
		if literal != "" {
			if !rewriteLiteral.MatchString(literal) {
				return fail("%q may not stand in a path", literal)
			}
			out.parts = append(out.parts, templatePart{literal: literal})
		}
		if !variable {
			break
		}
		name, next, ok := strings.Cut(after, "}")
		if !ok {
			return fail("a variable has no closing brace")
		}
		group := from.re.SubexpIndex(name)
		if group < 0 {
			return fail("the match has no variable %q", name)
		}
		out.parts = append(out.parts, templatePart{group: group})
		rest = next
	}
	return out, nil
}

// MarshalText shows the rewrite as configured.
func (t *TemplateRewrite) MarshalText() ([]byte, error) { return []byte(t.text), nil }

// appendPath appends the new path, without query; nothing for a path that does not match.
func (t *TemplateRewrite) appendPath(dst []byte, path string) []byte {
	groups := t.from.re.FindStringSubmatchIndex(inASCII(path))
	if groups == nil {
		return dst
	}
	for _, p := range t.parts {
		if p.literal != "" {
			dst = append(dst, p.literal...)
		} else {
			dst = append(dst, path[groups[2*p.group]:groups[2*p.group+1]]...)
		}
	}
	return dst
}
