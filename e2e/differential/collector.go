//go:build e2e

package differential

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"
)

// collectorField names the config whose record a collector gets.
const collectorField = "x-config"

// otlpLog is OpenTelemetry's access log, whose records the collector writes into the log file.
func (p *place) otlpLog(c *Config) map[string]any {
	log := map[string]any{"@type": apiType + "extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig"}
	maps.Copy(log, c.OTLP)
	delete(log, "filter")
	grpc := map[string]any{"envoy_grpc": map[string]any{"cluster_name": "collector"}, "timeout": "5s",
		"initial_metadata": []any{map[string]any{"key": collectorField, "value": c.Name}}}
	switch by := c.Collector.(type) {
	case string:
		if by == "grpc" {
			log["grpc_service"] = grpc
			break
		}
		log["http_service"] = map[string]any{
			"http_uri":               map[string]any{"uri": "http://collector.test/v1/logs", "cluster": "collector over HTTP/1", "timeout": "5s"},
			"request_headers_to_add": []any{map[string]any{"header": map[string]any{"key": collectorField, "value": c.Name}}}}
	case map[string]any:
		by = maps.Clone(by)
		by["grpc_service"] = grpc
		log["common_config"] = by
	}
	out := map[string]any{"name": "otlp", "typed_config": log}
	if f, ok := c.OTLP["filter"]; ok {
		out["filter"] = f
	}
	return out
}

// collects tells whether a config of the group has a log that a collector takes.
func (g *Group) collects() bool {
	for i := range g.Configs {
		if g.Configs[i].OTLP != nil {
			return true
		}
	}
	return false
}

// startCollector is the origin that takes OpenTelemetry's logs over gRPC and HTTP/1.
func (o *origins) startCollector() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	o.lns = append(o.lns, ln)
	o.ports["collector"] = ln.Addr().(*net.TCPAddr).Port
	both := http2Only()
	both.SetHTTP1(true)
	s := &http.Server{Protocols: both, Handler: http.HandlerFunc(o.serveCollector)}
	go func() { _ = s.Serve(ln) }()
	return nil
}

func (o *origins) serveCollector(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	grpc := r.Header.Get("Content-Type") == "application/grpc"
	if grpc && len(body) >= 5 {
		body = body[5:]
	}
	var in collectorv1.ExportLogsServiceRequest
	if err := proto.Unmarshal(body, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	o.collect(r, &in)
	if grpc {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write(make([]byte, 5))
		w.Header().Set("Grpc-Status", "0")
	}
}

// collect writes records into the config's log.
func (o *origins) collect(r *http.Request, in *collectorv1.ExportLogsServiceRequest) {
	f, err := os.OpenFile(o.logFile(r.Header.Get(collectorField)), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	head := strings.Join([]string{r.Method, r.Host, r.RequestURI, r.Header.Get("Content-Type")}, " ")
	for _, of := range in.ResourceLogs {
		for _, scope := range of.ScopeLogs {
			for _, record := range scope.LogRecords {
				line := map[string]any{"sent": head, "scope": scope.Scope.String() + scope.SchemaUrl + of.SchemaUrl, "resource": keyValues(of.Resource.GetAttributes())}
				logRecord(record, line)
				b, err := json.Marshal(line)
				if err == nil {
					_, _ = f.Write(append(b, '\n'))
				}
			}
		}
	}
}

// logRecord takes a record apart. Of time and span, which differ between any two programs,
// is told whether they are what the attributes say.
func logRecord(r *logsv1.LogRecord, line map[string]any) {
	said := map[string]string{
		"time": fmt.Sprintf("%d.%09d", r.TimeUnixNano/1e9, r.TimeUnixNano%1e9), "trace": hex.EncodeToString(r.TraceId), "span": hex.EncodeToString(r.SpanId),
	}
	var attributes []*commonv1.KeyValue
	for _, kv := range r.Attributes {
		if v, ok := said[kv.Key]; ok && v == kv.Value.GetStringValue() {
			said[kv.Key] = "as the attribute"
			continue
		}
		attributes = append(attributes, kv)
	}
	for k, v := range said {
		line[k] = v
	}
	line["body"], line["attributes"] = anyValue(r.Body), keyValues(attributes)
	rest := proto.CloneOf(r)
	rest.TimeUnixNano, rest.TraceId, rest.SpanId, rest.Body, rest.Attributes = 0, nil, nil, nil, nil
	line["rest"] = rest.String()
}

// keyValues are pairs in their order.
func keyValues(kvs []*commonv1.KeyValue) (out []any) {
	for _, kv := range kvs {
		out = append(out, []any{kv.Key, anyValue(kv.Value)})
	}
	return out
}

func anyValue(v *commonv1.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonv1.AnyValue_StringValue:
		return v.StringValue
	case *commonv1.AnyValue_KvlistValue:
		return map[string]any{"kvlist": keyValues(v.KvlistValue.Values)}
	case *commonv1.AnyValue_ArrayValue:
		out := []any{}
		for _, e := range v.ArrayValue.Values {
			out = append(out, anyValue(e))
		}
		return out
	}
	return v.String()
}
