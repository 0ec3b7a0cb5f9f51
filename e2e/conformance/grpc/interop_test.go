//go:build e2e

package interop

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// cases are all of grpc-go's that need no cloud. The others want a cloud's credentials
// (compute_engine_*, service_account_creds, jwt_token_creds, per_rpc_creds,
// oauth2_auth_token, google_default_credentials); pick_first_unary wants a server's name
// in its answers, which grpc-go's server does not give.
var cases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
	"orca_per_rpc", "orca_oob", "rpc_soak", "channel_soak",
}

// loadReports has the client choose servers by the load that they report, as the orca
// cases need it.
const loadReports = `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`

// runClient runs one case of a client of grpc-go, which exits with 1 where an answer
// is not what the case says.
func runClient(t *testing.T, program, addr, name string, more ...string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool(t, program), append([]string{"-server_host", host, "-server_port", port, "-test_case", name}, more...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out[max(0, len(out)-1500):])
	}
}

func startServer(t *testing.T) string {
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	start(t, tool(t, "server"), "-port", port)
	awaitListening(t, addr)
	return addr
}

func TestInterop(t *testing.T) {
	server := startServer(t)
	for _, p := range []path{oneHop(t, server, rendered), twoHops(t, server, rendered), onOne(t, server, rendered)} {
		for _, name := range cases {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				var more []string
				if strings.HasPrefix(name, "orca") {
					more = []string{"-service_config_json", loadReports}
				}
				// No call of a soak may fail; how long one takes is the machine's.
				more = append(more, "-soak_iterations", "50", "-soak_num_threads", "5",
					"-soak_per_iteration_max_acceptable_latency_ms", "20000", "-soak_overall_timeout_seconds", "50")
				runClient(t, "client", p.addr, name, more...)
			})
		}
	}
}
