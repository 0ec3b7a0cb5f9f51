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
	for range 2 {
		for i := range 100 { // that alternate
			if !same(s.of(said("3", float64(i))), s.of(said("3", float64(i)))) {
				t.Fatal("equal metadata are kept twice")
			}
		}
	}
	if one, two := s.of(said("3", 7)), s.of(said("3", 99)); !same(one["envoy.lb"], two["envoy.lb"]) || one["other"]["weight"] != 7.0 {
		t.Errorf("%v beside %v", one, two)
	}
	once := s.of(said("4", 0))
	for i := range 100 {
		s.of(said("4", float64(i)))
	}
	if !same(once, s.of(said("4", 0))) {
		t.Error("what was seen before many others is forgotten")
	}
	bad := said("\xff", 1)
	if got := s.of(bad); got["envoy.lb"]["version"] != "\xff" || got["other"]["weight"] != 1.0 {
		t.Errorf("what is no text: %v", got)
	}
	if s.of(nil) != nil || s.of(&corev3.Metadata{}) != nil {
		t.Error("nothing is something")
	}
}
