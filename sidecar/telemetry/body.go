package telemetry

// BodyFormat is a body with operators. Format is its text or its members, without a path.
type BodyFormat struct {
	Format      AccessLogConfig
	ContentType string
}

// Body is a BodyFormat, compiled.
type Body struct {
	format *Format
	// ContentType is what the format says, or that of JSON, "" for a text of which it says nothing.
	ContentType string
	JSON        bool
}

// NewBody compiles a format.
func NewBody(c *BodyFormat) (out *Body, err error) {
	out = &Body{ContentType: c.ContentType, JSON: c.Format.JSON}
	if !c.Format.JSON {
		if out.format, err = ParseFormat(c.Format.Format); err != nil {
			return nil, err
		}
		out.format.omit = c.Format.OmitEmpty
		return out, nil
	}
	if out.ContentType == "" {
		out.ContentType = "application/json"
	}
	out.format, err = CompileAccessLog(c.Format)
	return out, err
}

// Append appends the body of an exchange.
func (b *Body) Append(dst []byte, r *Record) []byte { return b.format.AppendBody(dst, r) }
