package render

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"github.com/hashicorp/consul/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

const (
	fileLog       = "envoy.access_loggers.file"
	discardedFlag = "NR" // no filter chain or route matched
)

// accessLogs are what one workload logs: requests and connections in its
// filters, and, by its listener, connections that reached none.
type accessLogs struct {
	filter, listener []*accesslogv3.AccessLog
}

// accessLogging reads the AccessLogs of a registration, or else those of
// proxy-defaults. Without either, nothing is logged by configuration; our
// sidecar can be told to by its own flags.
func accessLogging(env *Environment, client Client, registration string, own *api.AccessLogsConfig) (accessLogs, []Problem) {
	where, c := registration+" Proxy.AccessLogs", own
	if c == nil || *c == (api.AccessLogsConfig{}) {
		if env.proxyDefaults == nil {
			return accessLogs{}, nil
		}
		where, c = "proxy-defaults/global AccessLogs", env.proxyDefaults.AccessLogs
	} else if c.Enabled && c.Type == api.FileLogSinkType && !env.logsLieAt(c.Path) {
		return accessLogs{}, []Problem{{Path: where + ".Path", Reason: fmt.Sprintf("%q: a registration may name a file only in the directory of the one that AccessLogs.Path of proxy-defaults names: "+
			"whoever may register the service could have the sidecar append to any file of its host; nothing is logged", c.Path)}}
	}
	if c == nil || !c.Enabled {
		return accessLogs{}, nil
	}
	file, err := logFile(client, c)
	if err != nil {
		return accessLogs{}, []Problem{{Path: where + err.path, Reason: err.reason + "; nothing is logged"}}
	}
	var out accessLogs
	out.filter = []*accesslogv3.AccessLog{file}
	if c.DisableListenerLogs {
		return out, nil
	}
	if !client.Can(names.CapListenerLog) {
		return out, []Problem{{Path: where + ".DisableListenerLogs",
			Reason: "this sidecar does not log connections that match no filter chain; it counts them; set DisableListenerLogs to say that this is meant"}}
	}
	unmatched := proto.CloneOf(file)
	unmatched.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{discardedFlag}},
	}}
	out.listener = []*accesslogv3.AccessLog{unmatched}
	return out, nil
}

// logsLieAt says whether a path is beside the one of proxy-defaults, which the mesh's operators
// write, enabled or not. A path of which that is not plain is none.
func (e *Environment) logsLieAt(path string) bool {
	if e.proxyDefaults == nil || e.proxyDefaults.AccessLogs == nil || path != filepath.Clean(path) {
		return false
	}
	central := e.proxyDefaults.AccessLogs
	return central.Type == api.FileLogSinkType && filepath.IsAbs(central.Path) && filepath.Dir(path) == filepath.Dir(filepath.Clean(central.Path))
}

// checkFormat refuses the formats that our sidecar would: with its listener
// refused, later changes of authorization would not reach it. What Envoy knows
// beyond that is Envoy's.
func checkFormat(client Client, c *api.AccessLogsConfig) *logError {
	if client.Dialect == Envoy {
		return nil
	}
	if _, err := logformat.Parse(c.TextFormat); err != nil {
		return &logError{".TextFormat", err.Error()}
	}
	var fields map[string]string
	if c.JSONFormat != "" {
		if err := json.Unmarshal([]byte(c.JSONFormat), &fields); err != nil {
			return &logError{".JSONFormat", "not a JSON object of strings: " + err.Error()}
		}
	}
	for _, k := range sortedKeys(fields) {
		if _, err := logformat.Parse(fields[k]); err != nil {
			return &logError{".JSONFormat." + k, err.Error()}
		}
	}
	return nil
}

type logError struct{ path, reason string }

func logFile(client Client, c *api.AccessLogsConfig) (*accesslogv3.AccessLog, *logError) {
	if err := checkFormat(client, c); err != nil {
		return nil, err
	}
	f := &filelogv3.FileAccessLog{}
	switch c.Type {
	case api.DefaultLogSinkType, api.StdOutLogSinkType:
		f.Path = "/dev/stdout"
	case api.StdErrLogSinkType:
		f.Path = "/dev/stderr"
	case api.FileLogSinkType:
		if !filepath.IsAbs(c.Path) {
			return nil, &logError{".Path", fmt.Sprintf("%q is not an absolute path, which Type file needs", c.Path)}
		}
		f.Path = c.Path
	default:
		return nil, &logError{".Type", fmt.Sprintf("%q: use file, stdout or stderr", c.Type)}
	}
	switch {
	case c.JSONFormat != "" && c.TextFormat != "":
		return nil, &logError{".TextFormat", "only one of JSONFormat and TextFormat may be set"}
	case c.JSONFormat != "":
		var object map[string]any
		if err := json.Unmarshal([]byte(c.JSONFormat), &object); err != nil {
			return nil, &logError{".JSONFormat", "not a JSON object: " + err.Error()}
		}
		fields, err := structpb.NewStruct(object)
		if err != nil {
			return nil, &logError{".JSONFormat", err.Error()}
		}
		f.AccessLogFormat = &filelogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields},
		}}
	case c.TextFormat != "":
		text := c.TextFormat
		if text[len(text)-1] != '\n' {
			text += "\n" // Envoy adds none
		}
		f.AccessLogFormat = &filelogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: text},
			}},
		}}
	}
	any, err := toAny(f)
	if err != nil {
		return nil, &logError{"", err.Error()}
	}
	return &accesslogv3.AccessLog{Name: fileLog, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: any}}, nil
}
