package telemetry

import (
	"errors"
	"fmt"

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
	// object is set for JSON instead.
	object *node
	// omit leaves out what has no value.
	omit bool
}

// op is a literal and an operator behind it that appends a value; nil at the end of a
// format that ends in a literal.
type op struct {
	literal string
	value   valueFunc
	typed   valueFunc // the value as JSON, where that has not one type
	max     int       // longest value kept, 0 for all, logformat.Nothing for none
	number  bool      // a JSON number
	plain   bool      // nothing in the value is to be escaped
}

// CompileAccessLog compiles the format of one access log; it ends each record
// with a newline.
func CompileAccessLog(c AccessLogConfig) (*Format, error) {
	read := logformat.Parse
	if c.Connections {
		read = logformat.ParseOfConnection
	}
	if c.JSON {
		if c.Format != "" {
			return nil, errors.New("a JSON access log takes fields, not a text format")
		}
		fields := c.Fields
		if len(fields) == 0 {
			fields = map[string]any{}
			for k, v := range DefaultJSONFields() {
				fields[k] = v
			}
		}
		object, err := compileObject(fields, read)
		if err != nil {
			return nil, err
		}
		return &Format{object: object, omit: c.OmitEmpty}, nil
	}
	if len(c.Fields) > 0 {
		return nil, errors.New("a text access log takes a format, not fields; set JSON for fields")
	}
	text := c.Format
	if text == "" {
		text = DefaultTextFormat
	}
	ops, err := compile(text, read)
	if err != nil {
		return nil, err
	}
	f := &Format{ops: ops, omit: c.OmitEmpty}
	if n := len(f.ops); n == 0 || f.ops[n-1].value != nil || f.ops[n-1].literal[len(f.ops[n-1].literal)-1] != '\n' {
		f.ops = append(f.ops, op{literal: "\n"})
	}
	return f, nil
}

// reader takes a format to pieces.
type reader func(text string) ([]logformat.Piece, error)

// compile compiles the pieces of a format.
func compile(text string, read reader) ([]op, error) {
	pieces, err := read(text)
	if err != nil {
		return nil, err
	}
	var ops []op
	literal := ""
	for _, p := range pieces {
		if p.Name == "" {
			literal += p.Literal
			continue
		}
		o, err := operator(p)
		if err != nil {
			return nil, err
		}
		o.literal, literal = literal, ""
		ops = append(ops, o)
	}
	if literal != "" {
		ops = append(ops, op{literal: literal})
	}
	return ops, nil
}

func operator(p logformat.Piece) (op, error) {
	for i := range operators {
		d := &operators[i]
		if d.Name != p.Name {
			continue
		}
		want(d.wants)
		number := logformat.IsNumber(p.Name, p.Argument)
		out := op{value: d.value, max: p.Max, number: number, plain: number || d.plain && p.Argument == ""}
		if d.compile != nil {
			out, err := d.compile(p.Argument, p.Max)
			out.max = p.Max
			return out, err
		}
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
	ops, err := compile(text, logformat.Parse)
	if err != nil {
		return nil, err
	}
	return &Format{ops: ops}, nil
}

// Append formats a record. What has no value is "-", or null in JSON, or left out
// where that is asked for. Control bytes, quotation marks and backslashes in values
// are escaped, so that no value can end its field or its line.
func (f *Format) Append(dst []byte, r *Record) []byte {
	switch {
	case f.object != nil:
		return f.appendObject(dst, r)
	case f.omit:
		return appendText(dst, f.ops, r, "", true)
	}
	return appendText(dst, f.ops, r, "-", true)
}

// AppendHeader formats a record as the value of a header: what has no value is
// left out, and bytes that no field value may have are escaped.
func (f *Format) AppendHeader(dst []byte, r *Record) []byte {
	return appendText(dst, f.ops, r, "", false)
}

// AppendValue appends the value of the one operator that the format is of, as AppendHeader does. ok is
// false where it has none, which an empty text is not.
func (f *Format) AppendValue(dst []byte, r *Record) (out []byte, ok bool) {
	if !f.Single() {
		return dst, false
	}
	o := &f.ops[0]
	if out, ok = o.appendValue(dst, r); ok && !o.plain {
		out = escapeFrom(out, len(dst), false)
	}
	return out, ok
}

// Single tells whether the format is one operator, which AppendValue appends the value of.
func (f *Format) Single() bool { return len(f.ops) == 1 && f.ops[0].value != nil }

// AppendBody formats a record as the body of an answer, the values as they are. What
// has no value is "-", or left out where that is asked for.
func (f *Format) AppendBody(dst []byte, r *Record) []byte {
	if f.object != nil {
		return f.appendObject(dst, r)
	}
	for i := range f.ops {
		dst = f.ops[i].append(dst, r, f.omit)
	}
	return dst
}

func appendText(dst []byte, ops []op, r *Record, missing string, line bool) []byte {
	for i := range ops {
		o := &ops[i]
		if len(o.literal) == 1 {
			dst = append(dst, o.literal[0]) // most are a space
		} else {
			dst = append(dst, o.literal...)
		}
		if o.value == nil {
			continue
		}
		start := len(dst)
		var ok bool
		if dst, ok = o.appendValue(dst, r); !ok {
			dst = append(dst, missing...)
			continue
		}
		if !o.plain {
			dst = escapeFrom(dst, start, line)
		}
	}
	return dst
}

// append appends both as they are. What has no value is "-", or left out with omit.
func (o *op) append(dst []byte, r *Record, omit bool) []byte {
	dst = append(dst, o.literal...)
	if o.value == nil {
		return dst
	}
	dst, ok := o.appendValue(dst, r)
	if !ok && !omit {
		dst = append(dst, '-')
	}
	return dst
}

func (o *op) appendValue(dst []byte, r *Record) (out []byte, ok bool) {
	out, ok = o.value(dst, r)
	if o.max != 0 && len(out)-len(dst) > o.max {
		out = out[:len(dst)+max(o.max, 0)]
	}
	return out, ok
}
