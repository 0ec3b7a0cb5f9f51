package view

import (
	"fmt"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
)

// tracing is how a workload traces, with what leads to its collector in the set. A
// collector that cannot be used costs spans and nothing else.
func (b *builder) tracing(inst *catalog.Instance) render.Tracing {
	settings, problems := b.w.cache.TracingOf(b.w.env, b.client.Kind, inst)
	for _, p := range problems {
		p.Service = inst.Service.Service
		b.mine([]render.Problem{p})
	}
	if settings == nil {
		return render.Tracing{}
	}
	tracing, err := b.collector(inst, settings)
	if err == nil {
		err = tracing.Valid()
	}
	if err != nil {
		b.problem(inst.Service.Service, inst.ID+" Proxy.Config."+opaque.TracingKey, "%v; nothing is traced", err)
		return render.Tracing{}
	}
	return tracing
}

func (b *builder) collector(inst *catalog.Instance, settings *opaque.Tracing) (render.Tracing, error) {
	to := settings.Collector()
	if to.Service == "" {
		r, err := b.w.cache.Collector(b.client.Kind, settings)
		if err != nil {
			return render.Tracing{}, err
		}
		b.add(r, inst.Service.Service)
		return render.AtAddress(settings), nil
	}
	up := render.Upstream{Name: inst.Service.Global().In(b.w.snap.Datacenter)}
	up.Name.Service = to.Service
	state := b.w.chain(up.Name)
	b.out.used.chains[up.Name] = true
	b.out.used.calls[callKey{inst.Service, up.Name}] = true
	b.out.stamps = append(b.out.stamps, &state.stamp)
	if state.chain == nil {
		return render.Tracing{}, fmt.Errorf("%s", state.problem)
	}
	if render.EndsAt(state.chain, inst.Service.Service) {
		// The collector's own sidecar: a span of every delivery of spans would never end.
		return render.Tracing{}, nil
	}
	compiled, overrides := b.w.called(inst.Service, &up, state.chain)
	b.out.stamps = append(b.out.stamps, &overrides.stamp)
	chain, err := b.w.cache.OwnChain(b.w.env, b.client.Kind, inst.Service, compiled)
	if err != nil {
		return render.Tracing{}, err
	}
	b.mine(chain.Problems)
	tracing, err := render.AtService(settings, compiled, chain)
	if err == nil && !b.reach(chain) {
		err = fmt.Errorf("the endpoints of %s could not be rendered", to.Service)
	}
	if err != nil {
		return render.Tracing{}, err
	}
	return tracing, nil
}
