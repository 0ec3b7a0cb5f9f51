//go:build e2e

package differential

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// observation is all that is compared of one case, by field.
type observation map[string]string

// observe flattens what was seen. Names of header fields do not depend on case,
// and values of one name keep their order.
func observe(out *outcome, upstream []seen, log []map[string]any, p *place) observation {
	o := observation{}
	for i, m := range out.responses {
		if out.byStream {
			o.message(o.vacant(fmt.Sprintf("stream[%d].", out.of[i])+answerOrInterim(m), ".start"), m)
			continue
		}
		o.message(numbered("response", i), m)
	}
	o["end"] = out.end
	if out.tcp != "" {
		o["tcp"] = out.tcp
	}
	if out.tls != "" {
		o["tls"] = out.tls
	}
	if len(out.vain) > 0 {
		o["vain"] = strings.Join(out.vain, "; ")
	}
	for id, end := range out.streams {
		o[fmt.Sprintf("stream[%d]", id)] = cmp.Or(end, "open")
	}
	for i, s := range upstream {
		name := numbered("upstream", i)
		if out.byStream {
			words := strings.Split(s.Start, " ")
			name = o.vacant("upstream["+words[min(1, len(words)-1)]+"]", ".origin")
		}
		o[name+".origin"] = s.Origin
		o.message(name, s.Message)
	}
	// Attempts are before or after their request, and those of mirrored ones anywhere.
	slices.SortStableFunc(log, func(a, b map[string]any) int { return cmp.Compare(attemptOf(a), attemptOf(b)) })
	requests := 0
	for _, line := range log {
		name := numbered("log", requests)
		switch {
		case attemptOf(line) != "":
			name = o.vacant("attempt", ".code")
		case out.byStream:
			name = o.vacant("log["+text(line["path"])+"]", ".code")
		default:
			requests++
		}
		for k, v := range line {
			s := text(v)
			if strings.HasPrefix(k, "typed") {
				b, _ := json.Marshal(v) // of what type it is, too
				s = string(b)
			}
			if k == "flags" || k == "flags_long" {
				set := strings.Split(s, ",")
				slices.Sort(set)
				s = strings.Join(set, ",")
			}
			o[name+"."+k] = s
		}
	}
	for k, v := range o {
		o[k] = p.normalize(v)
	}
	return o
}

// attemptOf is the cluster of a record of an attempt, "" of another record.
func attemptOf(line map[string]any) string {
	if strings.HasPrefix(text(line["type"]), "Upstream") {
		return text(line["cluster"])
	}
	return ""
}

// vacant is the name, or the first with a number that has no such field yet.
func (o observation) vacant(name, field string) string {
	for i := 0; ; i++ {
		n := numbered(name, i)
		if _, taken := o[n+field]; !taken {
			return n
		}
	}
}

// answerOrInterim is what a response of HTTP/2 is.
func answerOrInterim(m *Message) string {
	if strings.HasPrefix(m.Start, "HTTP/2 1") {
		return "interim"
	}
	return "response"
}

func numbered(name string, i int) string {
	if i == 0 {
		return name
	}
	return fmt.Sprintf("%s[%d]", name, i)
}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return v
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func (o observation) message(name string, m *Message) {
	o[name+".start"] = withoutReason(m.Start)
	o[name+".framing"] = m.Framing
	o[name+".body"] = m.Body
	if m.Said != "" {
		o[name+".said"] = m.Said
	}
	if m.Broken != "" {
		o[name+".broken"] = m.Broken
	}
	o.fields(name+".header.", m.Headers)
	o.fields(name+".trailer.", m.Trailers)
	var order []string
	for _, h := range m.Headers {
		order = append(order, strings.ToLower(h.Name))
	}
	o[name+".order"] = strings.Join(order, " ")
}

// withoutReason cuts a status line after the code.
func withoutReason(line string) string {
	if parts := strings.SplitN(line, " ", 3); len(parts) == 3 && strings.HasPrefix(line, "HTTP/") {
		return parts[0] + " " + parts[1]
	}
	return line
}

func (o observation) fields(prefix string, fields []Header) {
	for _, h := range fields {
		k := prefix + strings.ToLower(h.Name)
		v := normal(h)
		if before, ok := o[k]; ok {
			v = before + " | " + v
		}
		o[k] = v
	}
}

var (
	uuid  = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	digit = regexp.MustCompile(`^[0-9]+$`)
	date  = regexp.MustCompile(`^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT$`)
)

// normal is the value of a header field as it is compared.
func normal(h Header) string {
	switch strings.ToLower(h.Name) {
	case "date":
		if date.MatchString(h.Value) {
			return "(a date)"
		}
	case "x-request-id":
		if uuid.MatchString(h.Value) {
			return "(a UUID)"
		}
	case "x-envoy-expected-rq-timeout-ms":
		// What is left of a timeout, roughly.
		if n, err := strconv.Atoi(h.Value); err == nil {
			if n > 5000 {
				return strconv.Itoa((n + 999) / 1000 * 1000)
			}
			return strconv.Itoa((n + 49) / 50 * 50)
		}
	case "x-envoy-upstream-service-time":
		if digit.MatchString(h.Value) {
			return "(a number)"
		}
	}
	return h.Value
}

// normalize puts names in place of ports.
func (p *place) normalize(v string) string {
	for name, port := range p.origins.ports {
		v = strings.ReplaceAll(v, fmt.Sprintf("127.0.0.1:%d", port), "("+name+")")
	}
	for name, addr := range p.origins.hosts {
		v = strings.ReplaceAll(v, addr, "("+name+")")
	}
	for name, port := range p.ports {
		v = strings.ReplaceAll(v, fmt.Sprintf("127.0.0.1:%d", port), "(listener "+name+")")
	}
	for _, a := range hostAddresses {
		v = strings.ReplaceAll(v, a, "(this host)")
	}
	return v
}

// hostAddresses are those of this host's interfaces, but for loopback.
var hostAddresses = func() (out []string) {
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			out = append(out, n.IP.String())
		}
	}
	return out
}()

// notCompared are fields that are kept for the eye only.
func notCompared(field string) bool { return strings.HasSuffix(field, ".order") }

// differences lists the fields in which two observations differ.
func differences(envoy, hauberk observation) (out []Difference) {
	all := maps.Clone(envoy)
	maps.Copy(all, hauberk)
	get := func(o observation, k string) string {
		if v, ok := o[k]; ok {
			return v
		}
		return absent
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if e, h := get(envoy, k), get(hauberk, k); e != h && !notCompared(k) {
			out = append(out, Difference{Field: k, Envoy: e, Hauberk: h})
		}
	}
	return out
}
