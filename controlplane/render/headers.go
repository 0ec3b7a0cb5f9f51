package render

import (
	"fmt"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/hashicorp/consul/api"
)

// commandOperators is what may follow a percent sign in a header value: another
// one, or an access-log operator such as %DOWNSTREAM_REMOTE_ADDRESS%.
var commandOperators = regexp.MustCompile(`%%|%[A-Z][A-Z0-9_]*(\([^%]*\))?(:[0-9]+)?%`)

// hostOperators are those that tell what is the proxy's host's own.
var hostOperators = regexp.MustCompile(`\b(ENVIRONMENT|FILE_CONTENT|GENERIC_SECRET|SECRET)\b`)

// tellsOfTheHost returns the operator of a value by which whoever writes a service's routes would
// have the proxies of its callers send him what is theirs.
func tellsOfTheHost(value string) string {
	for _, op := range commandOperators.FindAllString(value, -1) {
		name, argument, _ := strings.Cut(strings.Trim(op, "%"), "(")
		if found := hostOperators.FindString(name); found != "" {
			return found
		}
		if name == "COALESCE" {
			if found := hostOperators.FindString(argument); found != "" {
				return found
			}
		}
	}
	return ""
}

// headerChanges translates header modifiers: remove, then set, then add. A value
// may hold Envoy's operators, as in Consul; a stray percent sign would make a
// client refuse every route, so it is refused here.
func headerChanges(m *api.HTTPHeaderModifiers) ([]*corev3.HeaderValueOption, []string, error) {
	if m == nil {
		return nil, nil, nil
	}
	var add []*corev3.HeaderValueOption
	each := func(field string, values map[string]string, action corev3.HeaderValueOption_HeaderAppendAction) error {
		for _, name := range sortedKeys(values) {
			if err := mutable(name); err != nil {
				return fmt.Errorf("%s: %w", field, err)
			}
			if rest := commandOperators.ReplaceAllString(values[name], ""); strings.Contains(rest, "%") {
				return fmt.Errorf("%s: value of %q: a percent sign is written %%%%", field, name)
			}
			if op := tellsOfTheHost(values[name]); op != "" {
				return fmt.Errorf("%s: value of %q: %%%s%% would send what is the proxy's host's own, such as the secrets in its environment; remove it", field, name, op)
			}
			add = append(add, &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: strings.ToLower(name), Value: values[name]},
				AppendAction: action,
			})
		}
		return nil
	}
	if err := each("Set", m.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD); err != nil {
		return nil, nil, err
	}
	if err := each("Add", m.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD); err != nil {
		return nil, nil, err
	}
	var remove []string
	for _, name := range m.Remove {
		if err := mutable(name); err != nil {
			return nil, nil, atField("Remove", "%w", err)
		}
		remove = append(remove, strings.ToLower(name))
	}
	return add, remove, nil
}

// mutable says why a header may not be changed: what frames or addresses the
// message is not a route's to change.
func mutable(name string) error {
	switch lower := strings.ToLower(name); {
	case name == "":
		return fmt.Errorf("a header without a name")
	case strings.HasPrefix(name, ":"), lower == "host":
		return fmt.Errorf("header %q cannot be changed", name)
	case lower == "content-length", lower == "transfer-encoding", lower == "connection", lower == "upgrade", lower == "te", lower == "keep-alive":
		return fmt.Errorf("header %q frames the message and cannot be changed", name)
	}
	return nil
}
