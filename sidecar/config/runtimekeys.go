package config

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// isFraction tells a value of two fields from a struct of further keys, as Envoy does.
func isFraction(s *structpb.Struct) bool {
	f := s.GetFields()
	return len(f) == 0 || f["numerator"] != nil || f["denominator"] != nil
}

// value notes that a key is read; nil where no layer has it.
func (r *Runtime) value(key string) *structpb.Value {
	if r == nil || key == "" || r.values[key] == nil {
		return nil
	}
	r.note(key)
	return r.values[key]
}

// double is a key's number, also of a text. What is none leaves the default, as in Envoy.
func (r *Runtime) double(key string) (float64, bool) {
	switch k := r.value(key).GetKind().(type) {
	case *structpb.Value_NumberValue:
		return k.NumberValue, true
	case *structpb.Value_StringValue:
		n, err := strconv.ParseFloat(strings.TrimSpace(k.StringValue), 64)
		return n, err == nil
	}
	return 0, false
}

// integer is a key's number without its decimals; a negative one is none.
func (r *Runtime) integer(key string) (uint64, bool) {
	n, ok := r.double(key)
	if !ok || !(n >= 0 && n < math.MaxUint64) {
		return 0, false
	}
	return uint64(n), true
}

// number32 is integer for a field of 32 bits: what is more is the most.
func (r *Runtime) number32(key string, otherwise uint32) uint32 {
	if n, ok := r.integer(key); ok {
		return uint32(min(n, math.MaxUint32))
	}
	return otherwise
}

// boolean is a key's boolean, or whether its whole number is not 0.
func (r *Runtime) boolean(key string) (b, ok bool) {
	switch k := r.value(key).GetKind().(type) {
	case *structpb.Value_BoolValue:
		return k.BoolValue, true
	case *structpb.Value_StringValue, *structpb.Value_NumberValue:
		n, ok := r.double(key)
		return n != 0, ok && n < math.MaxInt32 && n >= math.MinInt32 && n == math.Trunc(n)
	}
	return false, false
}

// share is what a key says of a fraction: a whole number is a percentage.
func (r *Runtime) share(key string) (route.Share, bool) {
	if s := r.value(key).GetStructValue(); s != nil {
		f, ok := fractionOf(s)
		if !ok {
			return 0, false
		}
		out, err := share(f, "")
		return out, err == nil
	}
	n, ok := r.integer(key)
	return route.Share(min(n, 100)) * (route.All / 100), ok
}

// fractionOf reads a fraction; one with a field or a denominator that there is not is none.
func fractionOf(s *structpb.Struct) (*typev3.FractionalPercent, bool) {
	out := &typev3.FractionalPercent{}
	for name, v := range s.GetFields() {
		_, text := v.GetKind().(*structpb.Value_StringValue)
		switch {
		case name == "numerator":
			out.Numerator = uint32(min(max(v.GetNumberValue(), 0), math.MaxUint32))
		case name == "denominator" && text:
			d, known := typev3.FractionalPercent_DenominatorType_value[v.GetStringValue()]
			if !known {
				return nil, false
			}
			out.Denominator = typev3.FractionalPercent_DenominatorType(d)
		default:
			return nil, false
		}
	}
	return out, true
}

// fractional reads a share of the requests: its default, unless the runtime says otherwise.
func (r *Runtime) fractional(m *corev3.RuntimeFractionalPercent, path string) (route.Share, error) {
	if m.GetDefaultValue() == nil {
		return 0, fail(path+".default_value", "is missing")
	}
	out, err := share(m.GetDefaultValue(), path+".default_value")
	if s, ok := r.share(m.GetRuntimeKey()); ok && err == nil {
		return s, nil
	}
	return out, err
}

// enabled reads a feature flag: its default, unless the runtime says otherwise.
func (d *decoder) enabled(f *corev3.RuntimeFeatureFlag, path string) (bool, error) {
	if f == nil {
		return true, nil
	}
	if f.GetDefaultValue() == nil {
		return false, fail(path+".default_value", "is missing")
	}
	if b, ok := d.runtime.boolean(f.GetRuntimeKey()); ok {
		return b, nil
	}
	return f.GetDefaultValue().GetValue(), nil
}

// readHere are keys that have a meaning of their own, whatever resources name; those that
// end in a dot are prefixes of such.
var readHere = []string{
	globalLimitKey, listenerLimitPrefix, dropLimitKey,
	"tracing.client_enabled", "tracing.random_sampling", "tracing.global_enabled",
	faultDelayShareKey, faultDelayKey, faultAbortShareKey, faultStatusKey, faultGRPCKey, faultActiveKey, faultRateShareKey,
	// A bound on what one connection may do at a time, which Contour's and Emissary's have: here they
	// take turns by themselves.
	"http.max_requests_per_io_cycle",
	// Sizes of RE2's programs, which Consul's bootstraps set: every expression has one bound here.
	"re2.max_program_size.error_level", "re2.max_program_size.warn_level",
}

// readByEnvoy are prefixes of keys that Envoy's own code reads, with what there is instead.
var readByEnvoy = []struct{ prefix, instead string }{
	{"overload.premature_reset_", "connections whose streams are reset again and again are bounded by themselves"},
	{"upstream.healthy_panic_threshold", "use a cluster's common_lb_config.healthy_panic_threshold"},
	{"upstream.zone_routing.", "use a cluster's common_lb_config.zone_aware_lb_config"},
	{"upstream.", "it is not read"},
	{"outlier_detection.", "use a cluster's outlier_detection"},
	{"circuit_breakers.", "use a cluster's circuit_breakers"},
	{"health_check.", "use a cluster's health_checks"},
	{"fault.http.", "faults by x-envoy-downstream-service-cluster are not injected; use the filter's headers"},
	{"tracing.", "it is not read"}, {"http.", "it is not read"}, {"overload.", "it is not read"},
	{"re2.", "it is not read"},
}

func isReadHere(key string) bool {
	return slices.ContainsFunc(readHere, func(own string) bool {
		return key == own || strings.HasSuffix(own, ".") && strings.HasPrefix(key, own) && strings.HasSuffix(key, listenerLimitSuffix)
	})
}

// isGuard tells a switch between two ways in which Envoy's code works, envoy.reloadable_features.… and
// the like. Istio's, Envoy Gateway's and kgateway's bootstraps have some; none is read here.
func isGuard(key string) bool { return strings.HasPrefix(key, "envoy.") }

// settle refuses what nothing has read, unless resources are still to come that may; what only Envoy
// reads is refused even then.
func (r *Runtime) settle(toCome bool) error {
	defer func() { r.read = nil }()
	for _, k := range slices.Sorted(maps.Keys(r.values)) {
		if r.read[k] || strings.HasPrefix(k, "re2.") && isReadHere(k) || toCome && (isReadHere(k) || isGuard(k)) {
			continue
		}
		for _, of := range readByEnvoy {
			if strings.HasPrefix(k, of.prefix) && !isReadHere(k) {
				return fail(r.paths[k], "unsupported runtime key %q: %s", k, of.instead)
			}
		}
		if !toCome {
			return fail(r.paths[k], "runtime key %q is read by nothing in this bootstrap; remove it", k)
		}
	}
	return nil
}
