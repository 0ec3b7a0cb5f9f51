package hcm

import (
	"fmt"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// Check says why no manager could serve a configuration, wherever it runs: filters or
// local replies that cannot be made, routes that do not compile, or whose overrides do
// not fit the filters. New refuses the same, when it is too late to refuse by path.
func Check(cfg *Config) error {
	if _, err := newReplyRules(cfg.LocalReplies); err != nil {
		return err
	}
	if _, err := newEarly(cfg); err != nil {
		return err
	}
	if _, err := newClientCertChoice(cfg.ClientCertCases); err != nil {
		return err
	}
	p := &policy{cfg: cfg}
	if err := p.build(new(Manager), Options{}); err != nil || cfg.Routes == nil {
		return err
	}
	t, err := route.Compile(cfg.Routes)
	if err != nil {
		return err
	}
	if err := p.fits(t); err != nil {
		return fmt.Errorf("route_config.%w", err)
	}
	return nil
}
