package hcm

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// headerRules match requests by a header of the policy's name.
func headerRules(action authz.Action, policy string) *authz.Rules {
	return &authz.Rules{Action: action, Policies: []authz.Policy{{
		Name: policy, Permissions: []authz.Permission{{Header: &route.HeaderMatch{Name: policy, Present: ptr(true)}}}, Principals: []authz.Principal{{Any: true}},
	}}}
}

// TestMetadataOfRules: the log tells what each RBAC filter found, of every request anew, and takes
// records by it.
func TestMetadataOfRules(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int) {
		b := newBed(t, httpOrigin(t, told))
		b.cfg.Filters = []HTTPFilter{{Name: "first", Config: RBACFilter{}}, {Name: "second", Config: RBACFilter{}}}
		b.cfg.RBAC = []authz.HTTPFilter{
			{Shadow: headerRules(authz.Deny, "x-maybe"), Rules: headerRules(authz.Log, "x-log")},
			{Shadow: headerRules(authz.Allow, "x-good"), ShadowPrefix: "p_", Rules: headerRules(authz.Deny, "x-bad")},
		}
		only := func(f route.MetadataFilter) telemetry.Filter {
			telemetry.ShowMetadata()
			return f
		}
		const of = "%DYNAMIC_METADATA(envoy.filters.http.rbac:"
		b.cfg.AccessLog = []telemetry.AccessLogConfig{
			{Path: b.logPath, Format: of + "shadow_engine_result)% " + of + "shadow_effective_policy_id)% " + of + "p_shadow_engine_result)% " + of + "enforced_engine_result)% " + of + "enforced_effective_policy_id)%\n"},
			{Path: b.logPath, Format: "hint\n", Filter: only(route.MetadataFilter{Namespace: telemetry.MetadataCommon, Key: telemetry.LogHint, Flag: ptr(true)})},
			{Path: b.logPath, Format: "good or unknown\n", Filter: only(route.MetadataFilter{Namespace: telemetry.MetadataRBAC, Key: "p_shadow_effective_policy_id", Text: &route.StringMatch{Exact: ptr("x-good")}, Missing: true})},
			{Path: b.logPath, Format: "good\n", Filter: only(route.MetadataFilter{Namespace: telemetry.MetadataRBAC, Key: "p_shadow_effective_policy_id"})},
		}
		b.start()
		ask := b.asker(version)
		lines := 0
		for _, c := range []struct {
			field  string
			status int
			log    string
		}{
			{"X-Maybe: 1", 200, "denied x-maybe denied allowed -; good or unknown"},
			{"X-Other: 1", 200, "allowed - denied allowed -; good or unknown"},
			{"X-Bad: 1", 403, "allowed - denied denied x-bad; good or unknown"},
			{"X-Log: 1", 200, "allowed - denied allowed x-log; hint; good or unknown"},
			{"X-Good: 1", 200, "allowed - allowed allowed -; good or unknown; good"},
		} {
			if status, _ := ask("/", c.field); status != c.status {
				t.Errorf("%s: %d", c.field, status)
			}
			lines += strings.Count(c.log, "; ") + 1
			if got := strings.Join(b.logged(lines)[lines-strings.Count(c.log, "; ")-1:], "; "); got != c.log {
				t.Errorf("%s: %s", c.field, got)
			}
		}
	})
}
