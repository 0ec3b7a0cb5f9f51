package compile

import (
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// Authorization is who may call one service: the intentions that apply to it,
// in the order they decide. Immutable.
type Authorization struct {
	Service catalog.Name
	// Protocol is the service's; L7 permissions on a tcp service deny.
	Protocol string
	// Rules are in precedence order: the first whose source matches decides.
	Rules []Rule
	// DefaultAllow is the verdict when no rule matches.
	DefaultAllow bool
	Deps         Deps
}

// Rule is one source of a service-intentions entry.
type Rule struct {
	// Source may have Wildcard as its Service.
	Source catalog.Name
	// Action is allow or deny for an L4 rule. With Permissions, they decide in
	// order, and a request that matches none falls to the default.
	Action      api.IntentionAction
	Permissions []*api.IntentionPermission
	// Origin names the entry and source, for people and for denial messages:
	// "service-intentions/api Sources[0] (web)".
	Origin string
}
