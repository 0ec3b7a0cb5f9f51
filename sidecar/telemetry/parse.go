package telemetry

import (
	"fmt"
	"strconv"
	"strings"
)

// parse cuts a format into literals and operators: %NAME%, %NAME(ARGUMENT)%,
// %NAME(ARGUMENT):LENGTH%, and %% for a percent sign.
func parse(text string) ([]op, error) {
	var ops []op
	literal := ""
	flush := func() {
		if literal != "" {
			ops = append(ops, op{literal: literal})
			literal = ""
		}
	}
	for text != "" {
		i := strings.IndexByte(text, '%')
		if i < 0 {
			literal += text
			break
		}
		literal += text[:i]
		text = text[i+1:]
		if strings.HasPrefix(text, "%") {
			literal += "%"
			text = text[1:]
			continue
		}
		o, rest, err := parseOperator(text)
		if err != nil {
			return nil, err
		}
		flush()
		ops = append(ops, o)
		text = rest
	}
	flush()
	return ops, nil
}

// parseOperator reads one operator; text starts after its percent sign.
func parseOperator(text string) (o op, rest string, err error) {
	n := 0
	for n < len(text) && (text[n] == '_' || 'A' <= text[n] && text[n] <= 'Z' || '0' <= text[n] && text[n] <= '9') {
		n++
	}
	name, rest := text[:n], text[n:]
	if name == "" {
		return o, "", fmt.Errorf("access log format: no operator after %% at %q; write %%%% for a percent sign", clip(text))
	}
	argument, hasArgument := "", false
	if strings.HasPrefix(rest, "(") {
		end := closingParen(rest)
		if end < 0 {
			return o, "", fmt.Errorf("access log format: %%%s( has no closing parenthesis followed by %%", name)
		}
		argument, hasArgument, rest = rest[1:end], true, rest[end+1:]
	}
	limit := 0
	if strings.HasPrefix(rest, ":") {
		end := strings.IndexByte(rest, '%')
		if end < 0 {
			return o, "", fmt.Errorf("access log format: %%%s has no closing %%", name)
		}
		limit, err = strconv.Atoi(rest[1:end])
		if err != nil || limit <= 0 {
			return o, "", fmt.Errorf("access log format: length %q of %%%s%% is not a positive number", rest[1:end], name)
		}
		rest = rest[end:]
	}
	if !strings.HasPrefix(rest, "%") {
		return o, "", fmt.Errorf("access log format: %%%s has no closing %%", name)
	}
	o, err = operator(name, argument, hasArgument)
	if limit > 0 && err == nil {
		if o.number {
			return o, "", fmt.Errorf("access log format: %%%s%% is a number and takes no length", name)
		}
		o.max = limit
	}
	return o, rest[1:], err
}

// closingParen finds the parenthesis that ends an argument: the first one that
// the end of the operator follows. A time format has percent signs inside.
func closingParen(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != ')' {
			continue
		}
		tail := s[i+1:]
		if strings.HasPrefix(tail, "%") {
			return i
		}
		if digits, ok := strings.CutPrefix(tail, ":"); ok {
			if d := strings.TrimLeft(digits, "0123456789"); len(d) < len(digits) && strings.HasPrefix(d, "%") {
				return i
			}
		}
	}
	return -1
}

func operator(name, argument string, hasArgument bool) (op, error) {
	for i := range operators {
		d := &operators[i]
		if d.Name != name {
			continue
		}
		if d.withArgument == nil {
			if hasArgument {
				return op{}, fmt.Errorf("access log format: %%%s%% takes no argument", name)
			}
			return op{value: d.value, number: d.number}, nil
		}
		if argument == "" && d.needsArgument {
			return op{}, fmt.Errorf("access log format: %%%s%% needs an argument in parentheses", name)
		}
		value, err := d.withArgument(argument)
		if err != nil {
			return op{}, fmt.Errorf("access log format: %%%s(%s)%%: %w", name, argument, err)
		}
		return op{value: value}, nil
	}
	return op{}, fmt.Errorf("access log format: operator %%%s%% is unknown; docs/METRICS.md lists the operators", name)
}

func clip(s string) string {
	if len(s) > 16 {
		return s[:16] + "…"
	}
	return s
}
