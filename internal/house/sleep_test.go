package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// sleeps are the unit tests that sleep really, and how often, by the reason why they may.
// The list only shrinks: what waits for a time belongs into a bubble of testing/synctest,
// with sidecar/streamtest where it needs connections, and what waits for an event waits for
// that.
var sleeps = []struct {
	why   string
	files map[string]int
}{
	{"called from bubbles alone, which is not seen here", map[string]int{
		"controlplane/store/guard_test.go":    10,
		"controlplane/store/store_test.go":    4,
		"sidecar/cluster/health_test.go":      1,
		"sidecar/cluster/healthhttp2_test.go": 1,
		"sidecar/files/files_test.go":         2,
		"sidecar/hcm/pace_test.go":            1,
		"sidecar/hcm/pacewaits_test.go":       2,
	}},
	{"a peer or an end that takes its time, over real sockets", map[string]int{
		"sidecar/hcm/behaviour_test.go":          1,
		"sidecar/hcm/counts_test.go":             1,
		"sidecar/hcm/early_test.go":              1,
		"sidecar/hcm/observe_test.go":            2,
		"sidecar/hcm/phases_test.go":             2,
		"sidecar/hcm/hcm_test.go":                2,
		"sidecar/hcm/hedge_test.go":              3,
		"sidecar/hcm/http2_test.go":              4,
		"sidecar/hcm/mirror_test.go":             2,
		"sidecar/hcm/options_test.go":            3,
		"sidecar/hcm/pump_test.go":               1,
		"sidecar/hcm/refusal_test.go":            1,
		"sidecar/hcm/relay_test.go":              1,
		"sidecar/hcm/stale_test.go":              1,
		"sidecar/listener/listener_test.go":      1,
		"sidecar/listener/workload_test.go":      3,
		"sidecar/listener/workloadhosts_test.go": 1,
		"sidecar/stream/stream_test.go":          4,
		"sidecar/tcp/ending_test.go":             4,
		"xds/ads/session_test.go":                1,
	}},
	{"polls for what nothing tells of", map[string]int{
		"cmd/hauberk/main_test.go":           1,
		"identity/agent/agent_test.go":       2,
		"sidecar/cluster/cluster_test.go":    2,
		"sidecar/cluster/fault_test.go":      1,
		"sidecar/cluster/nameserver_test.go": 1,
		"sidecar/cluster/reserve_test.go":    2,
		"sidecar/cluster/settings_test.go":   1,
		"sidecar/drain_test.go":              1,
		"sidecar/e2e_test.go":                2,
		"sidecar/hcm/fault_test.go":          1,
		"sidecar/hcm/harness_test.go":        1,
		"sidecar/hcm/pending_test.go":        1,
		"sidecar/hcm/refused_test.go":        1,
		"sidecar/listener/fault_test.go":     1,
		"sidecar/listener/metrics_test.go":   1,
		"sidecar/secrets/store_test.go":      1,
		"sidecar/secrets_test.go":            1,
		"sidecar/stream/unread_test.go":      2,
		"sidecar/tunnel_test.go":             2,
		"sidecar/tunnelpark_test.go":         1,
		"xds/ads/bench_test.go":              1,
		"xds/client/helper_test.go":          1,
		"xds/relay/relay_test.go":            1,
	}},
}

// sleepsIn counts the calls of time.Sleep outside of what is handed to a bubble: there they
// are virtual.
func sleepsIn(t *testing.T, path string, src []byte) (n int) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch name := called(call.Fun); name {
		case "synctest.Test", "bubble", "bubbles", "bothInBubbles":
			return false
		case "time.Sleep":
			n++
		}
		return true
	})
	return n
}

// called is how a function is written that is called: its name, with its package's if it has one.
func called(fun ast.Expr) string {
	switch f := fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
	}
	return ""
}

// TestNoSleepInUnitTests: a time that passes really costs that time, and fails where the
// machine is slow.
func TestNoSleepInUnitTests(t *testing.T) {
	allowed := map[string]int{}
	for _, group := range sleeps {
		for path, n := range group.files {
			allowed[path] = n
		}
	}
	goFiles(t, func(path string, src []byte) {
		if !strings.HasSuffix(path, "_test.go") || bytes.HasPrefix(src, []byte("//go:build e2e\n")) {
			return
		}
		switch n, may := sleepsIn(t, path, src), allowed[path]; {
		case n > may:
			t.Errorf("%s calls time.Sleep %d times outside of bubbles, %d are allowed: use testing/synctest, or wait for what is to happen", path, n, may)
		case n < may:
			t.Errorf("%s calls time.Sleep %d times and not %d any more: take that off the list", path, n, may)
		}
		delete(allowed, path)
	})
	for path := range allowed {
		t.Errorf("%s is allowed to sleep and is not there", path)
	}
}

// TestSleepsAreFound: in bubbles they are not real.
func TestSleepsAreFound(t *testing.T) {
	src := `package p
func TestA(t *testing.T) {
	time.Sleep(1)
	go func() { time.Sleep(1) }()
	synctest.Test(t, func(t *testing.T) { time.Sleep(1) })
	t.Run("a", bubble(func(t *testing.T) { time.Sleep(1) }))
	bubble(func(t *testing.T) { time.Sleep(1) })(t)
}`
	if n := sleepsIn(t, "a_test.go", []byte(src)); n != 2 {
		t.Errorf("%d sleeps are found, not 2", n)
	}
}
