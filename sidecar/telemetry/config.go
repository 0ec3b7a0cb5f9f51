// Package telemetry counts and logs what passes through the data path at no
// price to it: sharded counters merged at scrape, access logs written by a
// goroutine of their own.
package telemetry

// Export is the configuration of an access log that is no file. It is plain data: equal
// ones are the same log.
type Export interface {
	// Check says why no log can be made of it.
	Check() error
}

// Exporters open what takes the records of an Export.
type Exporters interface {
	Open(Export) (ExportLog, error)
}

// ExportLog takes records; it keeps nothing of one after Log returns, and never waits.
type ExportLog interface {
	Sink
	Close()
}

// AccessLogConfig is one access log.
type AccessLogConfig struct {
	// Connections: the records are of a listener's or a TCP proxy's connections, which have metadata
	// that no request has.
	Connections bool `json:",omitempty"`
	// Path is a file, "/dev/stdout" or "/dev/stderr".
	Path string
	// JSON selects one object per line with the operators of Fields; otherwise
	// Format is a text format, Envoy's operators, Hauberk's default when empty.
	JSON   bool
	Format string
	// Fields has strings with operators, and other values of JSON as they are: nil,
	// bool, float64, []any and map[string]any.
	Fields map[string]any
	// OmitEmpty leaves out what has no value: in text it is nothing instead of "-", in
	// JSON the member is missing.
	OmitEmpty bool `json:",omitempty"`
	// Export has the records sent elsewhere, in the place of all above.
	Export Export `json:",omitempty"`
	// Filter chooses the records; nil takes all.
	Filter Filter `json:",omitempty"`
}
