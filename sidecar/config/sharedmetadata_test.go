package config

import (
	"reflect"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// TestSharedMetadata: endpoints of which the same is said have it once, whole or by its parts, and
// others have their own.
func TestSharedMetadata(t *testing.T) {
	said := func(version string, weight float64) *corev3.Metadata {
		return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"envoy.lb": {Fields: map[string]*structpb.Value{"version": structpb.NewStringValue(version)}},
			"other":    {Fields: map[string]*structpb.Value{"weight": structpb.NewNumberValue(weight)}},
		}}
	}
	same := func(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
	var s sharedMetadata
	first := s.of(said("1", 1))
	if again := s.of(said("1", 1)); !same(first, again) {
		t.Error("equal metadata are kept twice")
	}
	other := s.of(said("1", 2))
	if same(first, other) || !same(first["envoy.lb"], other["envoy.lb"]) || same(first["other"], other["other"]) || other["other"]["weight"] != 2.0 {
		t.Errorf("%v beside %v", other, first)
	}
	for i := range 10 {
		if got := s.of(said("2", float64(i)))["other"]["weight"]; got != float64(i) {
			t.Errorf("%v, want %d", got, i)
		}
	}
	if s.of(nil) != nil || s.of(&corev3.Metadata{}) != nil {
		t.Error("nothing is something")
	}
}
