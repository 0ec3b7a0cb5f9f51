package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// Overrides are what one caller asks of its upstream connections, from the
// UpstreamConfig of the caller's own service-defaults. The zero value asks for
// nothing.
type Overrides struct {
	ConnectTimeout     time.Duration
	Limits             *api.UpstreamLimits
	PassiveHealthCheck *api.PassiveHealthCheck
}

// CompileOverrides reads the overrides a source has for one destination:
// UpstreamConfig.Overrides by name, on top of UpstreamConfig.Defaults.
func CompileOverrides(snap *catalog.Snapshot, source, destination catalog.Name) (Overrides, Deps, error) {
	c := newCompiler(snap)
	sd, ok, err := entry[*api.ServiceConfigEntry](c, api.ServiceDefaults, source, source.Service)
	if err != nil {
		return Overrides{}, c.deps, fmt.Errorf("upstream settings of %s: %w", source, err)
	}
	var o Overrides
	if !ok || sd.UpstreamConfig == nil {
		return o, c.deps, nil
	}
	o.apply(sd.UpstreamConfig.Defaults)
	for _, u := range sd.UpstreamConfig.Overrides {
		if u.Name == destination.Service && inScope(source.Global(), u.Name, u.Namespace, u.Partition) == destination.Global() {
			o.apply(u)
		}
	}
	return o, c.deps, nil
}

func (o *Overrides) apply(u *api.UpstreamConfig) {
	if u == nil {
		return
	}
	if u.ConnectTimeoutMs > 0 {
		o.ConnectTimeout = time.Duration(u.ConnectTimeoutMs) * time.Millisecond
	}
	if u.Limits != nil {
		o.Limits = u.Limits
	}
	if u.PassiveHealthCheck != nil {
		o.PassiveHealthCheck = u.PassiveHealthCheck
	}
}

// With returns a copy of the chain whose targets obey the overrides.
func (ch *Chain) With(o Overrides) *Chain {
	if o == (Overrides{}) {
		return ch
	}
	out := *ch
	out.Customization = o.hash()
	out.Targets = make(map[string]*Target, len(ch.Targets))
	for id, t := range ch.Targets {
		t2 := *t
		if o.ConnectTimeout > 0 {
			t2.ConnectTimeout = o.ConnectTimeout
		}
		t2.Limits, t2.PassiveHealthCheck = o.Limits, o.PassiveHealthCheck
		out.Targets[id] = &t2
	}
	return &out
}

func (o Overrides) hash() string {
	// Marshalling plain structs of numbers and strings cannot fail.
	b, _ := json.Marshal(o)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:4])
}
