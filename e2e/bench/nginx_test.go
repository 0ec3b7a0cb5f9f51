package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStreamModule: nginx has what it carries TCP with built in, beside it, or not at all,
// and then it is said how to get it.
func TestStreamModule(t *testing.T) {
	dir := t.TempDir()
	module := filepath.Join(dir, "ngx_stream_module.so")
	if err := os.WriteFile(module, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for about, want := range map[string]string{
		"--with-stream --modules-path=/nowhere":                              "",
		"--with-stream=dynamic --modules-path=" + dir:                        "load_module " + module + ";\n",
		"--with-stream=dynamic --modules-path=/nowhere":                      "has no stream module: apt-get install libnginx-mod-stream",
		"--with-stream_ssl_module --modules-path=/nowhere --with-threads":    "has no stream module: ",
		"--with-stream_geoip_module=dynamic --without-http_uwsgi_module":     "has no stream module: ",
		"--with-stream_realip_module --with-stream --with-stream_ssl_module": "",
	} {
		nginx := filepath.Join(t.TempDir(), "nginx")
		if err := os.WriteFile(nginx, []byte("#!/bin/sh\necho 'configure arguments: "+about+"' >&2\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		got, err := streamModule(nginx)
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want) || want == "") {
			t.Errorf("%s: %q, want %q", about, got, want)
		}
	}
}
