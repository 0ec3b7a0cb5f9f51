package catalog

import (
	"maps"
	"reflect"
	"slices"

	"github.com/hashicorp/consul/api"
)

// Equal reports whether two instances mean the same to everything that is made
// from them. Raft indexes, check output and Evidence change without meaning.
func (i *Instance) Equal(o *Instance) bool {
	if i == o {
		return true
	}
	if i == nil || o == nil {
		return false
	}
	return i.Service == o.Service && i.ID == o.ID && i.Node == o.Node &&
		i.Address == o.Address && i.Port == o.Port &&
		i.PassingWeight == o.PassingWeight && i.WarningWeight == o.WarningWeight &&
		i.Health == o.Health && i.Problem == o.Problem &&
		reflect.DeepEqual(i.Proxy, o.Proxy) && equalEntries(i.Entry, o.Entry)
}

// EqualInstances compares two lists in order.
func EqualInstances(a, b []*Instance) bool {
	return slices.EqualFunc(a, b, func(x, y *Instance) bool { return x.Equal(y) })
}

func equalEntries(a, b *api.ServiceEntry) bool {
	if a == nil || b == nil {
		return a == b
	}
	return equalNodes(a.Node, b.Node) && equalServices(a.Service, b.Service) &&
		slices.EqualFunc(a.Checks, b.Checks, func(x, y *api.HealthCheck) bool {
			return x.CheckID == y.CheckID && x.Status == y.Status && x.Name == y.Name &&
				x.Type == y.Type && x.Notes == y.Notes && slices.Equal(x.ServiceTags, y.ServiceTags)
		})
}

func equalNodes(a, b *api.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ID == b.ID && a.Node == b.Node && a.Address == b.Address &&
		a.Datacenter == b.Datacenter && maps.Equal(a.Meta, b.Meta) &&
		maps.Equal(a.TaggedAddresses, b.TaggedAddresses) &&
		reflect.DeepEqual(a.Locality, b.Locality)
}

func equalServices(a, b *api.AgentService) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.CreateIndex, x.ModifyIndex, x.ContentHash = 0, 0, ""
	y.CreateIndex, y.ModifyIndex, y.ContentHash = 0, 0, ""
	return reflect.DeepEqual(&x, &y)
}

// EqualEntries reports whether two config entries say the same; raft indexes
// are not part of what they say.
func EqualEntries(a, b api.ConfigEntry) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if x.Type() != y.Type() {
		return false
	}
	if x.Kind() != reflect.Pointer || x.Elem().Kind() != reflect.Struct {
		return reflect.DeepEqual(a, b)
	}
	return reflect.DeepEqual(withoutIndexes(x), withoutIndexes(y))
}

func withoutIndexes(p reflect.Value) any {
	c := reflect.New(p.Type().Elem())
	c.Elem().Set(p.Elem())
	for _, name := range []string{"CreateIndex", "ModifyIndex"} {
		if f := c.Elem().FieldByName(name); f.IsValid() {
			f.SetZero()
		}
	}
	return c.Interface()
}
