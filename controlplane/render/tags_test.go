package render

import "testing"

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
