package telemetry

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// DefaultTextFormat is the text of an access log that names no format. Whatever a
// remote peer chooses stands between quotation marks.
const DefaultTextFormat = `[%START_TIME%] %HAUBERK_DIRECTION% "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" ` +
	`%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ` +
	`authority="%REQ(:AUTHORITY)%" request_id="%REQ(X-REQUEST-ID)%" ` +
	`src=%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% src.id="%HAUBERK_SRC_ID%" dst=%DOWNSTREAM_LOCAL_ADDRESS% dst.id="%HAUBERK_DST_ID%" ` +
	`service=%HAUBERK_SERVICE% decision=%HAUBERK_DECISION% rule="%HAUBERK_RULE%" route="%ROUTE_NAME%" ` +
	`cluster=%UPSTREAM_CLUSTER% upstream=%UPSTREAM_HOST% retries=%HAUBERK_RETRIES% ` +
	`closed="%CONNECTION_TERMINATION_DETAILS%" err="%HAUBERK_FAILURE%"`

// DefaultJSONFields are the fields of a JSON access log that names none.
func DefaultJSONFields() map[string]string {
	return map[string]string{
		"start_time":   "%START_TIME%",
		"direction":    "%HAUBERK_DIRECTION%",
		"listener":     "%HAUBERK_LISTENER%",
		"service":      "%HAUBERK_SERVICE%",
		"method":       "%REQ(:METHOD)%",
		"path":         "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
		"authority":    "%REQ(:AUTHORITY)%",
		"request_id":   "%REQ(X-REQUEST-ID)%",
		"protocol":     "%PROTOCOL%",
		"code":         "%RESPONSE_CODE%",
		"flags":        "%RESPONSE_FLAGS%",
		"details":      "%RESPONSE_CODE_DETAILS%",
		"bytes_recv":   "%BYTES_RECEIVED%",
		"bytes_sent":   "%BYTES_SENT%",
		"duration_ms":  "%DURATION%",
		"src.addr":     "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
		"src.id":       "%HAUBERK_SRC_ID%",
		"dst.addr":     "%DOWNSTREAM_LOCAL_ADDRESS%",
		"dst.id":       "%HAUBERK_DST_ID%",
		"sni":          "%REQUESTED_SERVER_NAME%",
		"tls":          "%DOWNSTREAM_TLS_VERSION%",
		"decision":     "%HAUBERK_DECISION%",
		"rule":         "%HAUBERK_RULE%",
		"route":        "%ROUTE_NAME%",
		"cluster":      "%UPSTREAM_CLUSTER%",
		"upstream":     "%UPSTREAM_HOST%",
		"retries":      "%HAUBERK_RETRIES%",
		"closed":       "%CONNECTION_TERMINATION_DETAILS%",
		"err":          "%HAUBERK_FAILURE%",
		"connection":   "%CONNECTION_ID%",
		"filter_chain": "%FILTER_CHAIN_NAME%",
	}
}

// Format is a compiled access-log format. Immutable.
type Format struct {
	ops []op
	// fields is set for a JSON object instead.
	fields []jsonField
}

type jsonField struct {
	key string // quoted, with the colon
	ops []op
}

// op is a literal, or an operator that appends a value. An operator that appends
// nothing has no value.
type op struct {
	literal string
	value   func(dst []byte, r *Record) []byte
	max     int  // longest value kept, 0 for all
	number  bool // a JSON number
}

// CompileAccessLog compiles the format of one access log; it ends each record
// with a newline.
func CompileAccessLog(c AccessLogConfig) (*Format, error) {
	if c.JSON {
		if c.Format != "" {
			return nil, errors.New("a JSON access log takes fields, not a text format")
		}
		fields := c.Fields
		if len(fields) == 0 {
			fields = DefaultJSONFields()
		}
		return compileJSON(fields)
	}
	if len(c.Fields) > 0 {
		return nil, errors.New("a text access log takes a format, not fields; set JSON for fields")
	}
	text := c.Format
	if text == "" {
		text = DefaultTextFormat
	}
	f, err := ParseFormat(text)
	if err != nil {
		return nil, err
	}
	if n := len(f.ops); n == 0 || f.ops[n-1].value != nil || f.ops[n-1].literal[len(f.ops[n-1].literal)-1] != '\n' {
		f.ops = append(f.ops, op{literal: "\n"})
	}
	return f, nil
}

func compileJSON(fields map[string]string) (*Format, error) {
	f := &Format{}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		ops, err := parse(fields[k])
		if err != nil {
			return nil, err
		}
		key := append(appendJSON(nil, []byte(k)), ':')
		f.fields = append(f.fields, jsonField{string(key), ops})
	}
	return f, nil
}

// parse compiles the pieces of a format.
func parse(text string) ([]op, error) {
	pieces, err := logformat.Parse(text)
	if err != nil {
		return nil, err
	}
	ops := make([]op, len(pieces))
	for i, p := range pieces {
		if p.Name == "" {
			ops[i] = op{literal: p.Literal}
			continue
		}
		if ops[i], err = operator(p); err != nil {
			return nil, err
		}
	}
	return ops, nil
}

func operator(p logformat.Piece) (op, error) {
	for i := range operators {
		d := &operators[i]
		if d.Name != p.Name {
			continue
		}
		out := op{value: d.value, max: p.Max, number: logformat.Operators[p.Name] == logformat.Number}
		if d.withArgument == nil {
			return out, nil
		}
		var err error
		out.value, err = d.withArgument(p.Argument)
		return out, err
	}
	return op{}, fmt.Errorf("access log format: operator %%%s%% has no value here", p.Name)
}

// ParseFormat compiles a text with %OPERATORS%. An unknown operator is refused.
func ParseFormat(text string) (*Format, error) {
	ops, err := parse(text)
	if err != nil {
		return nil, err
	}
	return &Format{ops: ops}, nil
}

// Append formats a record. What has no value is "-", or null in JSON. Control
// bytes, quotation marks and backslashes in values are escaped, so that no value
// can end its field or its line.
func (f *Format) Append(dst []byte, r *Record) []byte {
	if f.fields != nil {
		return f.appendObject(dst, r)
	}
	return appendText(dst, f.ops, r, "-", true)
}

// AppendHeader formats a record as the value of a header: what has no value is
// left out, and bytes that no field value may have are escaped.
func (f *Format) AppendHeader(dst []byte, r *Record) []byte {
	return appendText(dst, f.ops, r, "", false)
}

// AppendBody formats a record as the body of an answer, the values as they are. What
// has no value is "-", or with omit nothing.
func (f *Format) AppendBody(dst []byte, r *Record, omit bool) []byte {
	if f.fields != nil {
		return f.appendObject(dst, r)
	}
	for i := range f.ops {
		o := &f.ops[i]
		if o.value == nil {
			dst = append(dst, o.literal...)
			continue
		}
		start := len(dst)
		if dst = o.appendValue(dst, r); len(dst) == start && !omit {
			dst = append(dst, '-')
		}
	}
	return dst
}

func appendText(dst []byte, ops []op, r *Record, missing string, quotes bool) []byte {
	for i := range ops {
		o := &ops[i]
		if o.value == nil {
			dst = append(dst, o.literal...)
			continue
		}
		start := len(dst)
		dst = o.appendValue(dst, r)
		if len(dst) == start {
			dst = append(dst, missing...)
			continue
		}
		if !o.number {
			dst = escapeFrom(dst, start, quotes)
		}
	}
	return dst
}

func (o *op) appendValue(dst []byte, r *Record) []byte {
	start := len(dst)
	dst = o.value(dst, r)
	if o.max > 0 && len(dst)-start > o.max {
		dst = dst[:start+o.max]
	}
	return dst
}

func (f *Format) appendObject(dst []byte, r *Record) []byte {
	dst = append(dst, '{')
	for i := range f.fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, f.fields[i].key...)
		dst = appendMember(dst, f.fields[i].ops, r)
	}
	return append(dst, '}', '\n')
}

func appendMember(dst []byte, ops []op, r *Record) []byte {
	start := len(dst)
	if len(ops) == 1 && ops[0].value != nil {
		dst = ops[0].appendValue(dst, r)
		switch {
		case len(dst) == start:
			return append(dst, "null"...)
		case ops[0].number:
			return dst
		}
		return quoteFrom(dst, start)
	}
	for i := range ops {
		if ops[i].value == nil {
			dst = append(dst, ops[i].literal...)
			continue
		}
		before := len(dst)
		if dst = ops[i].appendValue(dst, r); len(dst) == before {
			dst = append(dst, '-')
		}
	}
	return quoteFrom(dst, start)
}

const hexDigits = "0123456789abcdef"

// escapeFrom escapes dst[start:] in place. Bytes beyond ASCII are escaped too:
// some terminals take 0x80–0x9f for control codes.
func escapeFrom(dst []byte, start int, quotes bool) []byte {
	special := func(c byte) bool {
		return c < 0x20 || c >= 0x7f || quotes && (c == '"' || c == '\\')
	}
	i := start
	for i < len(dst) && !special(dst[i]) {
		i++
	}
	if i == len(dst) {
		return dst
	}
	tail := append([]byte(nil), dst[i:]...)
	dst = dst[:i]
	for _, c := range tail {
		switch {
		case !special(c):
			dst = append(dst, c)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

// quoteFrom turns dst[start:] into a JSON string.
func quoteFrom(dst []byte, start int) []byte {
	plain := true
	for _, c := range dst[start:] {
		if c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		dst = append(dst, 0, 0)
		copy(dst[start+1:], dst[start:len(dst)-2])
		dst[start], dst[len(dst)-1] = '"', '"'
		return dst
	}
	return appendJSON(dst[:start], append([]byte(nil), dst[start:]...))
}

// appendJSON appends s as a JSON string; what is no UTF-8 becomes U+FFFD.
func appendJSON(dst, s []byte) []byte {
	dst = append(dst, '"')
	for len(s) > 0 {
		c, n := utf8.DecodeRune(s)
		switch {
		case c == utf8.RuneError && n == 1:
			dst = append(dst, `\ufffd`...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', byte(c))
		case c < 0x20 || c >= 0x7f && c < 0xa0:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c == '\u2028' || c == '\u2029':
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[c&15])
		default:
			dst = append(dst, s[:n]...)
		}
		s = s[n:]
	}
	return append(dst, '"')
}
