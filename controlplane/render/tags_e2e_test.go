//go:build e2e

package render

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEnvoyKnowsTheOperators has the real Envoy (ENVOY_BIN) load a text with each operator
// that tags may have on it: it refuses a configuration with one that it does not know.
func TestEnvoyKnowsTheOperators(t *testing.T) {
	bin := os.Getenv("ENVOY_BIN")
	if bin == "" {
		t.Fatal("set ENVOY_BIN")
	}
	validate := func(operators ...string) (string, error) {
		file := filepath.Join(t.TempDir(), "envoy.yaml")
		text := fmt.Sprintf(`static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: s
          cluster: c
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/null
              log_format: {text_format_source: {inline_string: "%s"}}
  clusters: [{name: c}]
`, "%"+strings.Join(operators, "% %")+"%")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), bin, "--mode", "validate", "-c", file).CombinedOutput()
		return string(out), err
	}
	var all []string
	for name := range envoyOperators {
		if slices.Contains([]string{"REQ", "RESP", "TRAILER"}, name) {
			name += "(x)"
		}
		all = append(all, name)
	}
	slices.Sort(all)
	if out, err := validate(all...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := validate("HAUBERK_RULE"); err == nil {
		t.Error("Envoy takes an operator that it cannot know: this test shows nothing")
	}
}
