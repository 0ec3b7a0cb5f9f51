package validate

import (
	"encoding/json"
	"path/filepath"

	"github.com/hashicorp/consul/api"
)

// accessLogs checks the AccessLogs of proxy-defaults or of a registration. Which
// operators a format may name is the client's to know: package render tells.
func (c *checker) accessLogs(path string, a *api.AccessLogsConfig) {
	if a == nil {
		return
	}
	switch a.Type {
	case api.DefaultLogSinkType, api.StdOutLogSinkType, api.StdErrLogSinkType:
		c.not(a.Path != "", path+".Path", "has a meaning only with Type file; remove it or set Type")
	case api.FileLogSinkType:
		if !filepath.IsAbs(a.Path) {
			c.add(path+".Path", "%q is not an absolute path, which Type file needs", a.Path)
		}
	default:
		c.add(path+".Type", "%q: use file, stdout or stderr", a.Type)
	}
	if a.JSONFormat == "" {
		return
	}
	c.not(a.TextFormat != "", path+".TextFormat", "only one of JSONFormat and TextFormat may be set")
	var object map[string]any
	if err := json.Unmarshal([]byte(a.JSONFormat), &object); err != nil {
		c.add(path+".JSONFormat", "not a JSON object: %v", err)
		return
	}
	for _, k := range sortedKeys(object) {
		if _, ok := object[k].(string); !ok {
			c.add(path+".JSONFormat."+k, "only strings are supported as values, have %v", object[k])
		}
	}
}
