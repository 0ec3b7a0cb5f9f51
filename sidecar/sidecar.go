// Package sidecar assembles the data plane: it takes configuration from a control
// plane or a bootstrap file, identity from the host's agent or from files, and
// keeps listeners, clusters and routes at what both say.
//
// Build binds what people and machines look at (admin, metrics, readiness), Run
// serves until its context ends and then drains, Addrs tells every address.
package sidecar

import (
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/workloadapi"
	"github.com/hauberk-mesh/hauberk/internal/stale"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/client"
)

// Config configures a Sidecar. Either Bootstrap or Agent is needed; with both,
// the static resources of the bootstrap come in addition.
type Config struct {
	// Bootstrap is an Envoy bootstrap.
	Bootstrap *config.Bootstrap
	// Agent joins the mesh: it gives identity, and the connection to the control
	// planes.
	Agent *agent.Config
	// HostSocket offers the agent's identities to other processes of the host;
	// nil for none. Its source is the Agent, which it needs.
	HostSocket *workloadapi.Config
	// Identity and Servers stand in for the agent's.
	Identity svid.Source
	Servers  []client.Server
	// Node is the name of this node.
	Node string
	// StateDir keeps the configuration cache; empty for none.
	StateDir string
	// Admin, Metrics and Ready are addresses, host:port, empty for none. Admin
	// must be loopback. AdminSocket is the path of the Unix socket that takes
	// what changes anything.
	Admin, AdminSocket, Metrics, Ready string
	// AccessLog applies to listeners that have none; nil for none.
	AccessLog *telemetry.AccessLogConfig
	// DrainTime bounds the drain at the end of Run; 30 s when 0.
	DrainTime time.Duration
	// WarmUp bounds how long a new listener waits for what it names; 15 s when 0.
	WarmUp time.Duration
	// MemoryLimit is what the process may have, where the bootstrap has no overload manager;
	// 0 for no limit. MemoryLimitOf says in the log where it is from.
	MemoryLimit   uint64
	MemoryLimitOf string
	// Patience is how long clients of HTTP are waited for besides what a configuration says.
	Patience hcm.Patience
	// StaleAfter is the age of configuration and trust data from which it is
	// warned of; stale.After when 0.
	StaleAfter time.Duration
	// Inherited are listening sockets that another process opened, systemd for
	// one. A listener that is configured for the address of one takes it. The
	// sidecar owns their files.
	Inherited []listener.Inherited
	Version   string
	Log       *slog.Logger
	Level     *slog.LevelVar
}

const (
	defaultDrain  = 30 * time.Second
	defaultWarmUp = 15 * time.Second
)

func (c *Config) complete() error {
	if c.Bootstrap == nil && c.Agent == nil && len(c.Servers) == 0 {
		return errors.New("there is neither a control plane nor a bootstrap file")
	}
	if c.HostSocket != nil && c.Agent == nil {
		return errors.New("the host socket needs an agent: there is none without a state directory")
	}
	if c.DrainTime <= 0 {
		c.DrainTime = defaultDrain
	}
	if c.WarmUp <= 0 {
		c.WarmUp = defaultWarmUp
	}
	if c.StaleAfter <= 0 {
		c.StaleAfter = stale.After
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Level == nil {
		c.Level = new(slog.LevelVar)
	}
	return nil
}

// Addrs are the addresses that a sidecar listens on.
type Addrs struct {
	Admin, Metrics, Ready net.Addr // nil when off
	AdminSocket           string
	HostSocket            string // empty when off
	Listeners             map[string]net.Addr
}
