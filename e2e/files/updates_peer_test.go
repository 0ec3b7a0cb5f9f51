//go:build e2e

package files

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/internal/ports"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// ground is what both programs send to: hosts, and what all are signed by.
type ground struct {
	ports [origins]int
	fill  []string
	mu    sync.Mutex
	slow  map[string]chan struct{}
	// showing are the certificates that clients show, by the name that they ask for.
	showing map[string]*tls.Certificate
	says    verdicts
}

func newGround(t *testing.T) *ground {
	g := &ground{slow: map[string]chan struct{}{}}
	g.says.all(200)
	var issued [][2]string
	anchors := [2]*pki{newPKI(t), newPKI(t)}
	g.fill = append(g.fill, "CABOTH", strconv.Quote(anchors[0].root()+anchors[1].root()))
	for i, name := range []string{"first.example", "second.example", "third.example", "late.example"} {
		issuer := *anchors[i/2%2]
		if i == 3 {
			issuer = *anchors[0]
			issuer.ended = true
		}
		crt, key := issuer.issue(t, name)
		issued = append(issued, [2]string{crt, key})
		if i < 2 {
			g.fill = append(g.fill, "CA"+strconv.Itoa(i), strconv.Quote(anchors[i].root()))
		}
		g.fill = append(g.fill, "CRT"+strconv.Itoa(i), strconv.Quote(crt), "KEY"+strconv.Itoa(i), strconv.Quote(key))
	}
	g.fill = append(g.fill, "CRL0", strconv.Quote(anchors[0].revoke(t, issued[1][0])))
	_, unknown := anchors[0].issue(t, "nobody")
	g.fill = append(g.fill, "KEY9", strconv.Quote(unknown))
	g.showing = map[string]*tls.Certificate{"third.example": {}}
	for i, name := range []string{"first.example", "second.example", "a host"} {
		crt, key := issued[0][0], issued[0][1]
		if i < 2 {
			crt, key = anchors[i].issue(t, name)
		}
		pair, err := tls.X509KeyPair([]byte(crt), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		g.showing[name] = &pair
		digest := sha256.Sum256(pair.Certificate[0])
		g.fill = append(g.fill, "PIN"+strconv.Itoa(i), hex.EncodeToString(digest[:]))
	}
	for i := range g.ports {
		s := httptest.NewUnstartedServer(g.host(strconv.Itoa(i)))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		if i < plains {
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
		} else {
			crt, key := issued[i-plains][0], issued[i-plains][1]
			pair, err := tls.X509KeyPair([]byte(crt), []byte(key))
			if err != nil {
				t.Fatal(err)
			}
			s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
			s.Config.SetKeepAlivesEnabled(false) // each request tells what a handshake comes to now
			s.StartTLS()
		}
		t.Cleanup(s.CloseClientConnections)
		g.ports[i] = s.Listener.Addr().(*net.TCPAddr).Port
		g.fill = append(g.fill, "ORIGIN"+strconv.Itoa(i), strconv.Itoa(g.ports[i]))
	}
	return g
}

// host answers with its name; a request that is to be long is answered when it is let go.
func (g *ground) host(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/check") {
			i, _ := strconv.Atoi(name)
			g.check(w, r, i)
			return
		}
		if id := r.URL.Query().Get("slow"); id != "" {
			g.mu.Lock()
			gate := g.slow[id]
			g.mu.Unlock()
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "begun ")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-gate:
			case <-r.Context().Done():
				return
			}
		}
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName+" at ")
		}
		_, _ = io.WriteString(w, name)
	}
}

// check answers a check of a host.
func (g *ground) check(w http.ResponseWriter, r *http.Request, host int) {
	g.mu.Lock()
	status := g.says[host][map[bool]int{true: 1}[strings.HasPrefix(r.URL.Path, "/check1")]]
	g.mu.Unlock()
	if status == 0 {
		<-r.Context().Done()
		return
	}
	w.WriteHeader(status)
}

// sway has hosts say something else to checks.
func (g *ground) sway(v verdicts) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.says = v
}

// peer is one of the two, with a server of its own.
type peer struct {
	program
	ads     *ads
	ports   [ports5]int
	host    string
	log     journal
	replace *strings.Replacer
	showing map[string]*tls.Certificate
	done    chan struct{}
	end     func()
}

var hosts atomic.Int32

// journal is what a program says while it runs.
type journal struct {
	mu sync.Mutex
	b  strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// follow starts a program that follows a server.
func follow(t *testing.T, name string, g *ground, delta, frank bool) *peer {
	t.Helper()
	p := &peer{program: program{name: name, dir: t.TempDir()}, ads: newADS(t, delta, frank), done: make(chan struct{})}
	// Nobody else has an address of these: a port is not listened at all the time.
	p.host = fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()%128, os.Getpid()/128%256, 1+hosts.Add(1)%250)
	fill := append(slices.Clone(g.fill), "HOST", p.host, "SECRETS", p.dir)
	p.showing = g.showing
	for i := range p.ports {
		var err error
		if p.ports[i], err = ports.Free(p.host); err != nil {
			t.Fatal(err)
		}
		fill = append(fill, "PORT"+strconv.Itoa(i), strconv.Itoa(p.ports[i]))
	}
	p.replace = strings.NewReplacer(fill...)
	return p
}

func (p *peer) run(t *testing.T) {
	t.Helper()
	api := map[bool]string{false: "GRPC", true: "DELTA_GRPC"}[p.ads.delta]
	text := fmt.Sprintf(`node: {id: edge-1, cluster: edge}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: ads}}]}
  lds_config: {resource_api_version: V3, ads: {}}
  cds_config: {resource_api_version: V3, ads: {}}
static_resources:
  clusters:
  - {name: ads, connect_timeout: 1s, load_assignment: {cluster_name: ads, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]},
      typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}
`, api, p.ads.port)
	if err := os.WriteFile(filepath.Join(p.dir, "envoy.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Getenv("ENVOY_BIN"), "-c", filepath.Join(p.dir, "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning",
		"--config-yaml", "{admin: {address: {pipe: {path: "+filepath.Join(p.dir, "admin.sock")+"}}}}")
	if p.name != "envoy" {
		cmd = exec.Command(filepath.Join(os.Getenv("HAUBERK_BIN"), "hauberk-sidecar"), "--bootstrap", filepath.Join(p.dir, "envoy.yaml"), "--admin", "off", "--admin-socket", filepath.Join(p.dir, "admin.sock"), "--metrics", "off", "--ready", "off", "--warm-up", "400ms")
	}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(p.done) }()
	p.end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-p.done
		p.ads.server.Stop()
	})
	t.Cleanup(p.end)
}

// load gives a peer's server what there is.
func (p *peer) load(t *testing.T, w *world, url string) {
	t.Helper()
	bodies := map[string]*anypb.Any{}
	for name, thing := range w.now[url] {
		m, err := parse(url, p.replace.Replace(thing.text))
		if err != nil {
			t.Fatalf("%s: %v", thing.text, err)
		}
		body, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		bodies[name] = body
	}
	p.ads.set(url, bodies)
}

// apply tells of types in order, each when something was said of the one before. What is said
// of a type counts from when the new of it is there.
func (p *peer) apply(t *testing.T, w *world, order []string) map[string]int {
	marks := map[string]int{}
	for _, url := range order {
		if url == resource.SecretType {
			p.writeSecrets(t, w)
			continue
		}
		p.load(t, w, url)
		marks[url] = p.ads.mark()
		nonce := p.ads.tell(url)
		if url == resource.ClusterType {
			// A changed cluster waits for its endpoints in Envoy, also those that it had. Where
			// another has them too it does not ask for them again, and would have none.
			p.ads.forget(resource.EndpointType)
			p.ads.tell(resource.EndpointType)
		}
		if nonce == "" || w.hasty {
			continue
		}
		for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
			if p.ads.verdict(url, nonce) != "" {
				time.Sleep(30 * time.Millisecond) // what it names is asked for by then, before there may be a fault in that
				break
			}
		}
	}
	return marks
}

// number is a statistic of the admin interface.
func (p *peer) warming(t *testing.T) bool {
	if p.name == "envoy" {
		// At its start it has not asked for listeners yet.
		return p.statistic(t, "listener_manager.workers_started") == 0 || p.statistic(t, "cluster_manager.warming_clusters")+p.statistic(t, "listener_manager.total_listeners_warming") > 0
	}
	return p.statistic(t, `hauberk_listeners{state="warming"}`) > 0
}

func (p *peer) active(t *testing.T) float64 {
	if p.name == "envoy" {
		return p.statistic(t, "listener_manager.total_listeners_active")
	}
	return p.statistic(t, `hauberk_listeners{state="active"}`)
}

// link is a connection of a client.
type link struct {
	c net.Conn
	r *bufio.Reader
}

// connect opens one; sni is "" for plaintext. Why it is not there is the answer of all requests.
func (p *peer) connect(port int, sni string) (*link, string) {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(p.host, strconv.Itoa(p.ports[port])), 2*time.Second)
	if err != nil {
		return nil, "refused"
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if sni == "" {
		return &link{c, bufio.NewReader(c)}, ""
	}
	s := p.shakesHands(c, sni)
	if err := s.Handshake(); err != nil {
		_ = c.Close()
		return nil, "closed" // a TCP proxy without a host does so before, or after it
	}
	return &link{s, bufio.NewReader(s)}, "tls " + s.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// answer is what is told of one; the host apart, as not every policy says which.
type answer struct{ what, of, host string }

func (a answer) String() string { return strings.TrimSpace(a.what + " of " + a.of + " " + a.host) }

// ask sends a request; the connection is gone where it answers closed.
func (l *link) ask(host, path, key, cluster string) (answer, bool) {
	_, _ = fmt.Fprintf(l.c, "GET %s HTTP/1.1\r\nHost: %s\r\nX-Key: %s\r\nX-Cluster: %s\r\n\r\n", path, host, key, cluster)
	r, err := http.ReadResponse(l.r, nil)
	if err != nil {
		return answer{what: "closed"}, false
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return answer{what: "cut"}, false
	}
	a := answer{what: fmt.Sprintf("%d %s %s %s", r.StatusCode, r.Header.Get("Server"), r.Header.Get("X-Mark"), r.Header.Get("Location")), of: r.Header.Get("X-Of")}
	if r.Header.Get("Server") == "" {
		return answer{what: "tcp"}, !r.Close // a host, without a hash, or one of TLS
	}
	if r.StatusCode == 200 {
		a.host = string(b)
	}
	return a, !r.Close
}

// probe is every answer of the listeners, by what was asked.
func (p *peer) probe(brief bool) map[string]answer {
	out := map[string]answer{}
	for port := range p.ports {
		for _, sni := range []string{"", "first.example", "second.example", "third.example"} {
			for ask, a := range p.probeOne(port, sni, brief) {
				out[fmt.Sprintf("%d %s %s", port, sni, ask)] = a
			}
			// Nobody listens; or it is passed on, and TLS would be to a host without a hash.
			if out[fmt.Sprintf("%d  connect", port)].what == "refused" || out[fmt.Sprintf("%d  h/a k0", port)].what == "tcp" {
				break
			}
		}
	}
	return out
}

func (p *peer) probeOne(port int, sni string, brief bool) map[string]answer {
	out := map[string]answer{}
	var l *link
	defer func() {
		if l != nil {
			_ = l.c.Close()
		}
	}()
	ask := func(host, path, key, cluster string) bool {
		if l == nil {
			var why string
			l, why = p.connect(port, sni)
			out["connect"] = answer{what: why}
			if l == nil {
				return false
			}
		}
		a, more := l.ask(host, path, key, cluster)
		if a.what == "closed" && len(out) == 1 {
			out["connect"] = a
			return false
		}
		out[host+path+" "+key+cluster] = a
		if !more {
			_ = l.c.Close()
			l = nil
		}
		return more || a.what != "closed"
	}
	for _, path := range paths {
		for key := range 4 {
			if !ask("h", path, "k"+strconv.Itoa(key), "") || brief {
				return out // nothing but connections to a host, or not HTTP
			}
		}
		ask("own.example", path, "k", "")
	}
	for c := range clusters5 {
		for key := range 4 {
			ask("h", "/to", "k"+strconv.Itoa(key), "c"+strconv.Itoa(c))
		}
	}
	return out
}

// held is how a long request ended, and what the next on its connection was answered.
type held struct {
	end   string
	again answer
	// from is the client's address, for the log. refused: of one that is cut, another like it is not
	// admitted any more.
	from    string
	refused bool
	of      string // its cluster
	relayed bool   // as bytes, which are no requests
}

// hold begins a long request at each listener, and returns what tells how they ended.
func (p *peer) hold(g *ground, step string) (finish func() map[string]held) {
	type one struct {
		*link
		rest io.Reader
		h    http.Header
	}
	begun := map[string]one{}
	gate := make(chan struct{})
	id := p.name + step
	g.mu.Lock()
	g.slow[id] = gate
	g.mu.Unlock()
	for port := range p.ports {
		for i := range 2 * len(paths) {
			path, sni := paths[i/2], []string{"", "first.example"}[i%2]
			l, _ := p.connect(port, sni)
			if l == nil {
				continue
			}
			_ = l.c.SetReadDeadline(time.Now().Add(2 * time.Second))
			_, _ = fmt.Fprintf(l.c, "GET %s?slow=%s HTTP/1.1\r\nHost: h\r\nX-Key: k0\r\n\r\n", path, id)
			r, err := http.ReadResponse(l.r, nil)
			if err != nil || r.StatusCode != 200 || len(r.TransferEncoding) == 0 {
				_ = l.c.Close()
				continue
			}
			begun[fmt.Sprint(port, path, " ", sni)] = one{l, r.Body, r.Header}
		}
	}
	return func() map[string]held {
		close(gate)
		out := map[string]held{}
		for name, l := range begun {
			_ = l.c.SetDeadline(time.Now().Add(5 * time.Second))
			h := held{end: "whole", from: l.c.LocalAddr().String(), of: l.h.Get("X-Of"), relayed: l.h.Get("Server") == ""}
			path, sni, _ := strings.Cut(name[1:], " ")
			if _, err := io.ReadAll(l.rest); err != nil {
				h.end = "cut: " + err.Error()
				h.refused = p.refuses(int(name[0]-'0'), path, sni)
			} else {
				h.again, _ = l.ask("h", path, "k0", "")
			}
			out[name] = h
			_ = l.c.Close()
		}
		return out
	}
}

// refuses tells whether a listener admits no connection of a kind: in plaintext where it takes TLS, or with a
// certificate that it does not take. One that is at another address now cannot be asked: what the log
// says of it has to do.
func (p *peer) refuses(port int, path, sni string) bool {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(p.host, strconv.Itoa(p.ports[port])), 2*time.Second)
	if err != nil {
		return true
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if sni != "" {
		err := p.shakesHands(c, sni).Handshake()
		return err != nil && strings.HasPrefix(err.Error(), "remote error: tls: ") && strings.Contains(err.Error(), "certificate")
	}
	l := &link{c, bufio.NewReader(c)}
	a, _ := l.ask("h", path, "k0", "")
	return a.what == "closed"
}

// shakesHands is a client's end of TLS.
func (p *peer) shakesHands(c net.Conn, sni string) *tls.Conn {
	return tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.showing[sni], nil }})
}
