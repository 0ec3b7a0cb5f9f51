package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/identity/ca"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func (a *apiServer) ready(w http.ResponseWriter, _ *http.Request) {
	if a.s.store.Current() == nil {
		fail(w, http.StatusServiceUnavailable, "the catalog is not in sync yet")
		return
	}
	fmt.Fprintln(w, "ready")
}

func (a *apiServer) status(w http.ResponseWriter, _ *http.Request) {
	src := a.s.cfg.Source.Status()
	st := api.Status{
		ControlPlane: api.ControlPlane{
			SPIFFEID:    a.s.identity.ID().String(),
			TrustDomain: a.s.cfg.TrustDomain.Name(),
			Datacenter:  a.s.cfg.Datacenter,
			Version:     a.s.cfg.Version,
			Started:     a.s.started,
			XDSAddress:  a.s.xds.Addr().String(),
			APIAddress:  a.addr(),
			Signers:     a.signers(),
		},
		Source: api.Source{Kind: src.Kind, Where: src.Where, Synced: src.Synced, Index: src.Index,
			LastSuccess: src.LastSuccess, Errors: src.Errors},
		Services: []api.Service{},
		Sidecars: a.sidecars(),
		Problems: []api.Problem{},
	}
	if cur := a.s.store.Current(); cur != nil {
		st.ControlPlane.Generation = cur.Snapshot.Generation
		st.ControlPlane.Datacenter = cur.Snapshot.Datacenter
		st.Services = services(cur.Snapshot)
	}
	for _, p := range a.s.views.Problems() {
		st.Problems = append(st.Problems, api.Problem{Where: problemPlace(p.Node, p.Service), What: p.Path + ": " + p.Reason})
	}
	now := time.Now() // before what is current says so
	for _, k := range a.s.kept() {
		if w := k.Warning(a.s.cfg.StaleAfter, now); w != "" {
			st.Warnings = append(st.Warnings, api.Problem{Where: "control plane", What: w})
		}
	}
	if why := a.s.identity.RotationHeld(); why != "" {
		st.Warnings = append(st.Warnings, api.Problem{Where: "control plane", What: why})
	}
	writeJSON(w, http.StatusOK, st)
}

func problemPlace(node, service string) string {
	switch {
	case service != "" && node != "":
		return "service " + service + " on " + node
	case service != "":
		return "service " + service
	case node != "":
		return "sidecar " + node
	}
	return "mesh"
}

// sidecars are the open sessions, and joined nodes that have none.
func (a *apiServer) sidecars() []api.Sidecar {
	out := []api.Sidecar{}
	seen := map[string]bool{}
	exposed := a.exposed()
	records := map[string]token.Node{}
	for _, n := range a.s.identity.ListNodes() {
		if n.Role == token.RoleNode {
			records[n.Name] = n
		}
	}
	for _, s := range a.s.ads.Sessions() {
		x := sidecarOf(s)
		x.Workloads = workloads(records[x.Node])
		x.Exposed = exposed[x.Node]
		seen[x.Node] = true
		out = append(out, x)
	}
	heard := map[string]time.Time{}
	for _, r := range a.s.identity.Reports() {
		heard[r.Node] = r.Received
	}
	for name, n := range records {
		if seen[name] {
			continue
		}
		x := api.Sidecar{Node: name, Workloads: workloads(n), State: "away", Types: map[string]api.TypeState{},
			Why: "joined " + ago(n.Joined) + ", not connected here, last heard " + ago(heard[name])}
		if n.Banned {
			x.State, x.Why = "banned", n.BanReason
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b api.Sidecar) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// exposed lists, by node, applications that are reachable beside their sidecar.
func (a *apiServer) exposed() map[string][]string {
	out := map[string][]string{}
	for _, r := range a.s.identity.Reports() {
		for _, w := range r.Workloads {
			for _, addr := range w.Listening {
				if !strings.HasPrefix(addr, "127.") && !strings.HasPrefix(addr, "[::1]") && !strings.HasPrefix(addr, "unix:") {
					out[r.Node] = append(out[r.Node], fmt.Sprintf("the application of %s also listens on %s, where no sidecar protects it; bind it to 127.0.0.1", w.Service, addr))
				}
			}
		}
		out[r.Node] = append(out[r.Node], r.Warnings...)
	}
	return out
}

// workloads are the names of the services a node may be, for a table.
func workloads(n token.Node) []string {
	out := []string{}
	for _, p := range n.Permitted {
		if id, err := spiffe.Of(p.ID); err == nil && id.Kind == spiffe.Service {
			out = append(out, id.Service)
		} else {
			out = append(out, p.ID.String())
		}
	}
	return out
}

// session finds a node's session, with its resources.
func (a *apiServer) session(node string) (ads.SessionStatus, bool) {
	for _, s := range a.s.ads.Sessions() {
		if nodeOf(s) == node {
			return a.s.ads.Session(s.ID)
		}
	}
	return ads.SessionStatus{}, false
}

func (a *apiServer) resources(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	var types []string
	if t := r.URL.Query().Get("type"); t != "" {
		types = strings.Split(t, ",")
	}
	if s, ok := a.session(name); ok {
		held := map[[2]string]*resource.Resource{}
		if list, ok := a.s.ads.Held(s.ID); ok {
			for _, res := range list {
				held[[2]string{res.Type, res.Name}] = res
			}
		}
		out, err := resourcesOf(s, held, types)
		if err != nil {
			fail(w, http.StatusInternalServerError, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, out)
		return
	}
	fail(w, http.StatusNotFound, fmt.Sprintf("no sidecar %q is connected to this control plane; `hauberk status` lists those that are", name))
}

func (a *apiServer) inbound(w http.ResponseWriter, r *http.Request) {
	cur := a.s.store.Current()
	if cur == nil {
		fail(w, http.StatusServiceUnavailable, "the catalog is not in sync yet")
		return
	}
	snap := cur.Snapshot
	name := catalog.NewName(snap.Datacenter, r.PathValue("name"))
	if len(snap.Instances[name]) == 0 && !named(snap, name) {
		fail(w, http.StatusNotFound, fmt.Sprintf("no service %q is known here; `hauberk status` lists the services", name.Service))
		return
	}
	lis, err := a.s.views.Inbound(name)
	if err != nil {
		fail(w, http.StatusConflict, err.Error())
		return
	}
	body, err := bodyJSON(lis)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	id, err := spiffe.ForService(a.s.cfg.TrustDomain, name.Namespace, name.Datacenter, name.Service)
	if err != nil {
		fail(w, http.StatusConflict, err.Error())
		return
	}
	out := api.Inbound{
		Service:     name.Service,
		SPIFFEID:    id.String(),
		TrustDomain: snap.TrustDomain,
		Datacenter:  snap.Datacenter,
		SNI:         names.Cluster("", name.Service, name.Namespace, name.Partition, name.Datacenter, snap.TrustDomain),
		Listener:    body,
	}
	if chain, _, err := compile.CompileChain(snap, name); err == nil {
		out.Protocol = chain.Protocol
	}
	writeJSON(w, http.StatusOK, out)
}

// named reports whether any config entry is about the service.
func named(snap *catalog.Snapshot, name catalog.Name) bool {
	for k := range snap.Entries {
		if k.Name == catalog.FoldName(name.Service) {
			return true
		}
	}
	return false
}

func (a *apiServer) tokens(w http.ResponseWriter, _ *http.Request) {
	records, err := a.s.identity.ListTokens()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	out := []api.Token{}
	for _, r := range records {
		out = append(out, api.Token{ID: r.ID, Node: r.Name, Role: string(r.Role), Created: r.Created, Expires: r.Expires, Used: r.Used})
	}
	writeJSON(w, http.StatusOK, out)
}

func (a *apiServer) mintToken(w http.ResponseWriter, r *http.Request) {
	var req api.TokenRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, "token request: "+err.Error())
		return
	}
	spec, err := a.tokenSpec(r.Context(), &req)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	t, rec, err := a.s.identity.MintToken(spec)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, api.TokenReply{Token: t.Reveal(), ID: rec.ID, Node: rec.Name, Expires: rec.Expires})
}

// syncPatience is how long a request waits for a catalog that has just been
// started: less than a person minds.
const syncPatience = 5 * time.Second

// datacenter is part of a service's name. The catalog knows it once it is in sync.
func (a *apiServer) datacenter(ctx context.Context) (string, error) {
	if a.s.cfg.Datacenter != "" {
		return a.s.cfg.Datacenter, nil
	}
	cur := a.s.store.Current()
	if cur == nil {
		sub := a.s.store.Subscribe()
		defer sub.Close()
		ctx, cancel := context.WithTimeout(ctx, syncPatience)
		defer cancel()
		if _, err := sub.Next(ctx); err != nil {
			return "", errors.New("the catalog is not in sync yet, so the datacenter is not known; `hauberk status` says why; try again, or give a whole --workload id")
		}
		cur = a.s.store.Current()
	}
	return cur.Snapshot.Datacenter, nil
}

func (a *apiServer) tokenSpec(ctx context.Context, req *api.TokenRequest) (token.Spec, error) {
	spec := token.Spec{Role: token.Role(req.Role), Name: req.Node, TTL: req.TTL, Addresses: req.Addresses}
	if spec.Role == "" {
		spec.Role = token.RoleNode
	}
	for _, s := range req.Services {
		service, selectors := cutSelectors(s)
		dc, err := a.datacenter(ctx)
		if err != nil {
			return spec, err
		}
		id, err := spiffe.ForService(a.s.cfg.TrustDomain, catalog.DefaultNamespace, dc, service)
		if err != nil {
			return spec, err
		}
		spec.Permitted = append(spec.Permitted, token.Permit{ID: id, Selectors: selectors})
	}
	for _, s := range req.Workloads {
		text, selectors := cutSelectors(s)
		id, err := spiffeid.FromString(text)
		if err != nil {
			return spec, fmt.Errorf("workload %q: %w", text, err)
		}
		spec.Permitted = append(spec.Permitted, token.Permit{ID: id, Selectors: selectors})
	}
	return spec, nil
}

// cutSelectors splits "api@uid=1001,gid=5".
func cutSelectors(s string) (name string, selectors []string) {
	name, rest, ok := strings.Cut(s, "@")
	if ok {
		selectors = strings.Split(rest, ",")
	}
	return name, selectors
}

func (a *apiServer) nodes(w http.ResponseWriter, _ *http.Request) {
	out := []api.Node{}
	for _, n := range a.s.identity.ListNodes() {
		x := api.Node{Name: n.Name, Joined: n.Joined, Banned: n.Banned, Workloads: []string{}}
		for _, p := range n.Permitted {
			x.Workloads = append(x.Workloads, p.ID.String())
		}
		out = append(out, x)
	}
	writeJSON(w, http.StatusOK, out)
}

func (a *apiServer) ban(w http.ResponseWriter, r *http.Request) {
	if _, err := a.s.identity.BanNode(token.RoleNode, r.PathValue("name"), "banned by an operator at "+time.Now().UTC().Format(time.RFC3339)); err != nil {
		fail(w, http.StatusConflict, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

// change serves what is done to the one thing that the path names.
func change(do func(name string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := do(r.PathValue("name")); err != nil {
			fail(w, http.StatusConflict, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, struct{}{})
	}
}

func (a *apiServer) removeControlPlane(name string) error {
	id, err := spiffe.ForControlPlane(a.s.cfg.TrustDomain, name)
	if err != nil {
		return err
	}
	return a.s.identity.RemoveControlPlane(id)
}

func (a *apiServer) signers() []api.Signer {
	out := []api.Signer{}
	for _, s := range a.s.identity.CAStatus().Signers {
		out = append(out, api.Signer{ID: s.ID, Owner: s.Owner, State: string(s.State), NotAfter: s.NotAfter})
	}
	return out
}

func (a *apiServer) ca(w http.ResponseWriter, _ *http.Request) {
	st := a.s.identity.CAStatus()
	bundle := a.s.identity.TrustBundle()
	jwks, err := bundle.JWKS()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	out := api.CA{TrustDomain: st.TrustDomain, Sequence: st.Sequence, Signers: a.signers(), Bundle: jwks}
	if s, ok := bundle.Signer(st.Signing); ok {
		out.Pin = trust.PinOf(s.Certificate).String()
	}
	writeJSON(w, http.StatusOK, out)
}

// backup sends the private state. It is made in a file first, so that a failure
// half-way is an error and not a short archive.
func (a *apiServer) backup(w http.ResponseWriter, _ *http.Request) {
	f, err := os.CreateTemp(a.s.cfg.StateDir, ".tmp-backup-*") // a name that no backup holds
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := ca.Backup(a.s.cfg.StateDir, f); err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	size, err := f.Seek(0, io.SeekEnd)
	if _, again := f.Seek(0, io.SeekStart); err != nil || again != nil {
		fail(w, http.StatusInternalServerError, errors.Join(err, again).Error())
		return
	}
	w.Header().Set("Content-Type", "application/x-tar")
	// What is cut off, at whichever end, is a short body to the client, which is an error there.
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, _ = io.Copy(w, f)
}

func removeSocket(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
