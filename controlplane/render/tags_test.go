package render

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
)

func TestTagsNeverSendTheEnvironment(t *testing.T) {
	for _, v := range []string{"%ENVIRONMENT(TOKEN)%", `%COALESCE({"operators":[{"command":"ENVIRONMENT","param":"TOKEN"}]})%`} {
		if checkTag("x", v) == nil {
			t.Errorf("%s was accepted", v)
		}
	}
	if err := checkTag("x", "%REQ(:PATH)%"); err != nil {
		t.Error(err)
	}
}

func TestTagsThatEnvoyDoesNotKnowGoAlone(t *testing.T) {
	tags := map[string]string{
		"a": "shop", "b": "%REQ(x-team)%", "c": "%HAUBERK_RULE%", "d": "%REQ_WITHOUT_QUERY(:PATH)%",
		"e": `%COALESCE({"operators":["HAUBERK_SERVICE"]})%`,
	}
	problems := withoutUnknown(tags, "tracing.tags.")
	if len(tags) != 2 || tags["a"] == "" || tags["b"] == "" || len(problems) != 3 || problems[0].Path != "tracing.tags.c" {
		t.Fatal(tags, problems)
	}
}

func TestTracingThatCannotBeRenderedIsInvalid(t *testing.T) {
	settings := &opaque.Tracing{OTLP: &opaque.Collector{Host: "192.0.2.1", Port: 4317, Insecure: true}, Tags: map[string]string{"a": "x"}}
	if err := AtAddress(settings).Valid(); err != nil {
		t.Fatal(err)
	}
	settings.Tags[""] = "x"
	if AtAddress(settings).Valid() == nil {
		t.Error("a tag without a name is valid")
	}
}
