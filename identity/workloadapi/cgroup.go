package workloadapi

import (
	"strings"

	"github.com/hauberk-mesh/hauberk/identity/selector"
)

// unitOf finds the systemd unit in /proc/PID/cgroup (cgroups(7)): in the unified
// hierarchy of version 2, in the hierarchy named systemd of version 1, or in
// both on a host that mounts both. Where the two disagree there is none.
func unitOf(file []byte) string {
	var unified, named string
	for line := range strings.Lines(string(file)) {
		// hierarchy-ID:controller-list:path; a path may hold colons.
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			unified = unitOfPath(fields[2])
		case fields[0] != "0" && fields[1] == "name=systemd":
			named = unitOfPath(fields[2])
		}
	}
	switch {
	case unified == "":
		return named
	case named == "" || named == unified:
		return unified
	}
	return ""
}

// unitOfPath is the unit that the system's manager made: the first service or
// scope below nothing but slices. What is further down was made by whoever the
// unit's cgroup is delegated to: a user's own manager may well have a
// web.service too, below user@1000.service.
func unitOfPath(path string) string {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return ""
	}
	for dir := range strings.SplitSeq(rest, "/") {
		// A leading underscore keeps a name apart from the kernel's own files.
		name := strings.TrimPrefix(dir, "_")
		if strings.HasSuffix(name, ".slice") {
			continue
		}
		if !selector.IsUnit(name) {
			return ""
		}
		return name
	}
	return ""
}
