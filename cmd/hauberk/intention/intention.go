// Package intention is `hauberk intention`: may one service call another, and
// which entry says so. The verdict is not worked out anew: the rules that the
// control plane renders for the destination's sidecars are evaluated by the
// sidecar's own code.
package intention

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/output"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Command returns `hauberk intention`.
func Command(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{Use: "intention", Short: "ask who may call whom"}
	cmd.AddCommand(check(env))
	return cmd
}

// Verdict is what check prints.
type Verdict struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Method      string `json:"method,omitempty"`
	Path        string `json:"path,omitempty"`
	Allowed     bool   `json:"allowed"`
	// Rule is the entry and source that decided, or the default.
	Rule string `json:"rule"`
}

// question is what is asked.
type question struct {
	source, method, path string
	headers              []string
}

func check(env *cli.Env) *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "check SRC DST",
		Short: "may SRC call DST, and which entry decides",
		Long: "Tells whether the service SRC may call the service DST, with the deciding entry. For an http service a\n" +
			"method and path can be given. SRC may also be a whole SPIFFE ID.\n" +
			"Exit code 0 allowed, 1 denied, 2 could not tell.",
		Example: "  hauberk intention check web api\n  hauberk intention check web api --method POST --path /admin",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client()
			if err != nil {
				return err
			}
			var in api.Inbound
			if err := c.Get(cmd.Context(), strings.Replace(api.InboundPath, "{name}", url.PathEscape(args[1]), 1), &in); err != nil {
				return err
			}
			q.source = args[0]
			v, err := decide(&in, q)
			if err != nil {
				return err
			}
			if err := env.Print(v, v.print); err != nil {
				return err
			}
			if !v.Allowed {
				return &output.ExitError{Code: output.No}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.method, "method", "GET", "method of the request, for an http service")
	f.StringVar(&q.path, "path", "/", "path of the request, for an http service")
	f.StringArrayVar(&q.headers, "header", nil, "NAME=VALUE of the request; repeatable")
	return cmd
}

func (v *Verdict) print(w io.Writer) error {
	word := "denied "
	if v.Allowed {
		word = "allowed"
	}
	what := v.Source + " -> " + v.Destination
	if v.Path != "" {
		what += " " + v.Method + " " + v.Path
	}
	_, err := fmt.Fprintf(w, "%s  %s  (%s)\n", word, what, v.Rule)
	return err
}

func decide(in *api.Inbound, q question) (*Verdict, error) {
	id, err := sourceID(in, q.source)
	if err != nil {
		return nil, err
	}
	chain, err := chainOf(in)
	if err != nil {
		return nil, err
	}
	peer := authz.NewPeer(&stream.Info{OwnID: in.SPIFFEID, PeerID: id, TLS: true, SNI: in.SNI}, netip.AddrPort{})
	v := &Verdict{Source: q.source, Destination: in.Service}
	conn, err := authz.Compile(chain.RBAC, authz.Connection, nil)
	if err != nil {
		return nil, err
	}
	d := conn.CheckConn(&peer)
	if chain.HTTP != nil {
		v.Method, v.Path = q.method, q.path
		if d.Allowed {
			req, err := q.request(in.Service)
			if err != nil {
				return nil, err
			}
			exchange, err := authz.Compile(chain.HTTP.RBAC, authz.Exchange, nil)
			if err != nil {
				return nil, err
			}
			d = exchange.CheckRequest(&peer, req)
		}
	}
	v.Allowed, v.Rule = d.Allowed, d.Rule
	if v.Rule == "" {
		v.Rule = authz.DefaultAllow
	}
	return v, nil
}

func sourceID(in *api.Inbound, source string) (string, error) {
	if strings.HasPrefix(source, "spiffe://") {
		return source, nil
	}
	td, err := spiffeid.TrustDomainFromString(in.TrustDomain)
	if err != nil {
		return "", err
	}
	id, err := spiffe.ForService(td, "default", in.Datacenter, source)
	return id.String(), err
}

// chainOf reads the rendered listener as a sidecar does and finds the service's
// own filter chain.
func chainOf(in *api.Inbound) (*listener.FilterChain, error) {
	var lis listenerv3.Listener
	if err := protojson.Unmarshal(in.Listener, &lis); err != nil {
		return nil, fmt.Errorf("inbound listener of %s: %w", in.Service, err)
	}
	b, err := proto.Marshal(&lis)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Listener(b)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Chains {
		if slices.Contains(cfg.Chains[i].Match.ServerNames, in.SNI) {
			return &cfg.Chains[i], nil
		}
	}
	return nil, fmt.Errorf("inbound listener of %s has no filter chain for %s", in.Service, in.SNI)
}

// request is a request's headers as the rules see them.
type request map[string][]string

func (r request) Header(lower string) (string, bool) {
	v, _, ok := r.HeaderFrom(message.NameOf(lower), 0)
	return v, ok
}

func (r request) HeaderFrom(name message.Name, from int) (string, int, bool) {
	if v := r[name.String()]; from < len(v) {
		return v[from], from + 1, true
	}
	return "", from, false
}

func (q question) request(service string) (request, error) {
	if !strings.HasPrefix(q.path, "/") {
		return nil, fmt.Errorf("--path %q: must start with /", q.path)
	}
	r := request{":method": {q.method}, ":path": {q.path}, ":authority": {service}, ":scheme": {"http"}, "host": {service}}
	for _, h := range q.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return nil, fmt.Errorf("--header %q: want NAME=VALUE", h)
		}
		name = strings.ToLower(name)
		r[name] = append(r[name], value)
	}
	return r, nil
}
