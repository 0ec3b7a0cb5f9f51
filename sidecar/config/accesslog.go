package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"os"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogfilev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	accesslogstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	metadataformatterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/metadata/v3"
	withoutqueryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/req_without_query/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// envoyFormat is Envoy's documented default, for logs that name no format.
const envoyFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" ` +
	`%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ` +
	`%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" ` +
	`"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"

func (d *decoder) accessLogs(ms []*accesslogv3.AccessLog, path string) ([]telemetry.AccessLogConfig, error) {
	var out []telemetry.AccessLogConfig
	for i, m := range ms {
		l, err := d.accessLog(m, at(path, i))
		if err != nil {
			return nil, err
		}
		out = append(out, *l)
	}
	return out, nil
}

// connectionLogs reads the logs of a listener or a TCP proxy.
func (d *decoder) connectionLogs(ms []*accesslogv3.AccessLog, path string) ([]telemetry.AccessLogConfig, error) {
	d.connections = true
	defer func() { d.connections = false }()
	return d.accessLogs(ms, path)
}

// adminLogs reads the admin listener's logs, that of the deprecated path last.
func (d *decoder) adminLogs(m *bootstrapv3.Admin) ([]telemetry.AccessLogConfig, error) {
	out, err := d.accessLogs(m.GetAccessLog(), "admin.access_log")
	if path := m.GetAccessLogPath(); path != "" {
		out = append(out, telemetry.AccessLogConfig{Path: path, Format: envoyFormat})
	}
	return out, err
}

func (d *decoder) accessLog(m *accesslogv3.AccessLog, path string) (*telemetry.AccessLogConfig, error) {
	here := path + ".typed_config"
	out := &telemetry.AccessLogConfig{Format: envoyFormat, Connections: d.connections}
	var err error
	if out.Filter, err = d.logFilter(m.GetFilter(), path+".filter"); err != nil {
		return nil, err
	}
	var format *corev3.SubstitutionFormatString
	switch c := d.unpacked[m.GetTypedConfig()].(type) {
	case *accesslogfilev3.FileAccessLog:
		out.Path, format = c.GetPath(), c.GetLogFormat()
		switch f := c.GetAccessLogFormat().(type) {
		case *accesslogfilev3.FileAccessLog_Format:
			if f.Format != "" {
				out.Format = f.Format
			}
		case *accesslogfilev3.FileAccessLog_JsonFormat: // its numbers are numbers too, in Envoy
			return out, jsonFormat(f.JsonFormat, out, here+".json_format")
		case *accesslogfilev3.FileAccessLog_TypedJsonFormat:
			return out, jsonFormat(f.TypedJsonFormat, out, here+".typed_json_format")
		}
	case *otelv3.OpenTelemetryAccessLogConfig:
		out.Format = ""
		if out.Export, err = openTelemetryLog(c, here); err != nil {
			return nil, err
		}
		return out, d.formatters(c.GetFormatters(), here+".formatters")
	case *accesslogstreamv3.StdoutAccessLog:
		out.Path, format = "/dev/stdout", c.GetLogFormat()
	case *accesslogstreamv3.StderrAccessLog:
		out.Path, format = "/dev/stderr", c.GetLogFormat()
	default:
		return nil, fail(path, "access log %q has no typed_config", m.GetName())
	}
	if format == nil {
		return out, compiles(out, here+".format")
	}
	if err = d.formatString(format, out, here+".log_format"); err != nil {
		return nil, err
	}
	if !out.JSON && out.Format == "" {
		// Envoy writes nothing then, line after line.
		return nil, fail(here+".log_format", "is empty; write a format, leave log_format out for the default one, or remove the log")
	}
	return out, nil
}

// formatString reads a format into out. Its content_type is for who has a use for it.
func (d *decoder) formatString(m *corev3.SubstitutionFormatString, out *telemetry.AccessLogConfig, path string) error {
	if err := d.formatters(m.GetFormatters(), path+".formatters"); err != nil {
		return err
	}
	switch f := m.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormat:
		out.Format = f.TextFormat
	case *corev3.SubstitutionFormatString_TextFormatSource:
		var err error
		if out.Format, err = d.text(f.TextFormatSource, path+".text_format_source"); err != nil {
			return err
		}
	case *corev3.SubstitutionFormatString_JsonFormat:
		out.OmitEmpty = m.GetOmitEmptyValues()
		return jsonFormat(f.JsonFormat, out, path+".json_format")
	default:
		return fail(path, "has no format")
	}
	out.OmitEmpty = m.GetOmitEmptyValues()
	return compiles(out, path)
}

// formatters takes those whose operators are there without them too, as many files still name them.
func (d *decoder) formatters(ms []*corev3.TypedExtensionConfig, path string) error {
	for i, m := range ms {
		switch d.unpacked[m.GetTypedConfig()].(type) {
		case *withoutqueryv3.ReqWithoutQuery, *metadataformatterv3.Metadata:
		default:
			return fail(at(path, i)+".typed_config", "is that of neither req_without_query nor metadata; others are not known")
		}
	}
	return nil
}

func jsonFormat(m *structpb.Struct, out *telemetry.AccessLogConfig, path string) error {
	if out.JSON, out.Format, out.Fields = true, "", m.AsMap(); len(out.Fields) == 0 {
		return fail(path, "is empty")
	}
	return compiles(out, path)
}

// compiles refuses a format with an operator that is none.
func compiles(l *telemetry.AccessLogConfig, path string) error {
	if _, err := telemetry.CompileAccessLog(*l); err != nil {
		return fail(path, "%v", err)
	}
	return nil
}

// text returns the data of a source. A file is for the host's own configuration, and read once, as
// in Envoy: a control plane must not have the host's files told to whoever asks.
func (d *decoder) text(s *corev3.DataSource, path string) (string, error) {
	name := s.GetFilename()
	if name == "" {
		return inline(s), nil
	}
	if path += ".filename"; d.secrets == nil {
		return "", fail(path, "files are read for a bootstrap only; write the text into inline_string")
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fail(path, "%v", err)
	}
	return string(b), nil
}

// inline returns the data of a source that is not a file. What may be read of the
// environment the resource was checked for.
func inline(s *corev3.DataSource) string {
	if b := s.GetInlineBytes(); len(b) > 0 {
		return string(b)
	}
	if name := s.GetEnvironmentVariable(); name != "" {
		return os.Getenv(name)
	}
	return s.GetInlineString()
}
