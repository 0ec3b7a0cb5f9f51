package sidecar

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// withTunnels has every TLS context of a bootstrap offer tunnels.
func withTunnels(bootstrap string) string {
	return regexp.MustCompile(`( +)common_tls_context:\n`).ReplaceAllString(bootstrap, "${0}${1}  alpn_protocols: ["+names.TunnelALPN+"]\n")
}

// onlyTCP takes the HTTP chain away: ALPN of tunnels is not for it.
func onlyTCP(bootstrap string) string {
	from := strings.Index(bootstrap, "    - name: http\n")
	to := strings.Index(bootstrap, "    - name: tcp\n")
	return bootstrap[:from] + bootstrap[to:]
}

// TestTunnels: byte streams share one connection where both sidecars offer it, and have
// their own where one does not; identity, authorization and logs are those of each.
func TestTunnels(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "evil", "api", "db"} {
		a.issue(s)
	}
	for _, test := range []struct {
		name           string
		client, server bool
		carriers       int // connections that the second sidecar accepts for 20 of the first
	}{{"both", true, true, 1}, {"client only", true, false, 20}, {"server only", false, true, 20}} {
		t.Run(test.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "access.log")
			server := onlyTCP(server(a, application(t), echo(t)))
			if test.server {
				server = withTunnels(server)
			}
			srv := run(t, server, func(c *Config) { c.AccessLog = &telemetry.AccessLogConfig{Path: log, JSON: true} })
			from := func(who string) net.Addr {
				c := caller(a, who, srv.Addrs().Listeners["in"])
				if test.client {
					c = withTunnels(c)
				}
				return run(t, c).Addrs().Listeners["db"]
			}
			db := from("web")
			var conns []net.Conn
			for range 20 {
				c, err := net.Dial("tcp", db.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns = append(conns, c)
			}
			var wg sync.WaitGroup
			for i, c := range conns {
				wg.Go(func() {
					want := fmt.Sprintf("line %d\n", i)
					if got, err := say(c, strings.TrimSuffix(want, "\n")); err != nil || got != want {
						t.Errorf("%q %v", got, err)
					}
				})
			}
			wg.Wait()
			if n := accepted(t, srv); n != test.carriers {
				t.Errorf("%d connections between the sidecars, want %d", n, test.carriers)
			}
			// The end of one half is passed on, and the other goes on.
			tc := conns[0].(*net.TCPConn)
			_, _ = io.WriteString(tc, "last words")
			_ = tc.CloseWrite()
			if rest, err := io.ReadAll(tc); err != nil || string(rest) != "last words" {
				t.Errorf("%q %v", rest, err)
			}
			for _, c := range conns[1:] {
				_ = c.Close()
			}
			waitForLines(t, log, 20)
			if lines, _ := os.ReadFile(log); strings.Count(string(lines), id("web")) < 20 {
				t.Errorf("not every connection is logged with its peer:\n%s", lines)
			}

			// Whoever is denied is, whatever carries it.
			c, err := net.Dial("tcp", from("evil").String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := say(c, "let me in"); err == nil {
				t.Errorf("evil was answered %q", got)
			}
		})
	}
}

// accepted is how many connections a sidecar's inbound listener took.
func accepted(t *testing.T, s *Sidecar) int {
	t.Helper()
	_, metrics := call(t, "GET", s.Addrs().Metrics, "/metrics", "")
	n := -1
	for _, line := range strings.Split(metrics, "\n") {
		if strings.HasPrefix(line, `hauberk_listener_accepts_total{listener="in"}`) {
			_, _ = fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
		}
	}
	return n
}

func waitForLines(t *testing.T, file string, n int) {
	t.Helper()
	for range 500 {
		if b, _ := os.ReadFile(file); strings.Count(string(b), "\n") >= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b, _ := os.ReadFile(file)
	t.Fatalf("%s has not %d lines:\n%s", file, n, b)
}
