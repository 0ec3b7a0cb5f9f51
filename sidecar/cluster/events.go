package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// The events have Envoy's fields and their order (envoy.data.cluster.v3, envoy.data.core.v3), as
// its JSON has them.

// outlierEvent is an OutlierDetectionEvent.
type outlierEvent struct {
	Type         string           `json:"type"`
	Timestamp    eventTime        `json:"timestamp"`
	SinceLast    *uint64          `json:"secs_since_last_action,omitempty,string"`
	Cluster      string           `json:"cluster_name"`
	URL          string           `json:"upstream_url"`
	Action       string           `json:"action"`
	NumEjections uint32           `json:"num_ejections"`
	Enforced     bool             `json:"enforced"`
	Rate         *rateEvent       `json:"eject_success_rate_event,omitempty"`
	Consecutive  *struct{}        `json:"eject_consecutive_event,omitempty"`
	Percentage   *percentageEvent `json:"eject_failure_percentage_event,omitempty"`
}

// rateEvent says how a host's success rate compares with the others', in percent.
type rateEvent struct {
	Host      uint32 `json:"host_success_rate"`
	Average   uint32 `json:"cluster_average_success_rate"`
	Threshold uint32 `json:"cluster_success_rate_ejection_threshold"`
}

type percentageEvent struct {
	Host uint32 `json:"host_success_rate"`
}

// checkEvent is a HealthCheckEvent.
type checkEvent struct {
	Checker          string         `json:"health_checker_type"`
	Host             eventAddress   `json:"host"`
	Cluster          string         `json:"cluster_name"`
	EjectUnhealthy   *checkFailure  `json:"eject_unhealthy_event,omitempty"`
	AddHealthy       *firstCheck    `json:"add_healthy_event,omitempty"`
	Timestamp        eventTime      `json:"timestamp"`
	Failure          *checkFailure  `json:"health_check_failure_event,omitempty"`
	Degraded         *struct{}      `json:"degraded_healthy_host,omitempty"`
	NoLongerDegraded *struct{}      `json:"no_longer_degraded_host,omitempty"`
	Metadata         *eventMetadata `json:"metadata,omitempty"`
	Locality         eventLocality  `json:"locality"`
	Success          *struct{}      `json:"successful_health_check_event,omitempty"`
}

type checkFailure struct {
	Type   string `json:"failure_type"`
	First  *bool  `json:"first_check,omitempty"`
	Status int    `json:"http_status_code"`
}

type firstCheck struct {
	First bool `json:"first_check"`
}

type eventAddress struct {
	Socket *eventSocket `json:"socket_address,omitempty"`
	Pipe   *eventPipe   `json:"pipe,omitempty"`
}

type eventSocket struct {
	Protocol  string `json:"protocol"`
	Address   string `json:"address"`
	Port      int    `json:"port_value"`
	Resolver  string `json:"resolver_name"`
	IPv4      bool   `json:"ipv4_compat"`
	Namespace string `json:"network_namespace_filepath"`
}

type eventPipe struct {
	Path string `json:"path"`
	Mode int    `json:"mode"`
}

type eventMetadata struct {
	Filter map[string]map[string]any `json:"filter_metadata"`
	Typed  struct{}                  `json:"typed_filter_metadata"`
}

type eventLocality struct {
	Region  string `json:"region"`
	Zone    string `json:"zone"`
	SubZone string `json:"sub_zone"`
}

// eventTime is a time in milliseconds, as the JSON of protobuf has it: without a fraction where
// that is 0.
type eventTime struct{ time.Time }

func (t eventTime) MarshalJSON() ([]byte, error) {
	format := "2006-01-02T15:04:05.000Z"
	if t.Nanosecond()/int(time.Millisecond) == 0 {
		format = "2006-01-02T15:04:05Z"
	}
	return json.Marshal(t.UTC().Format(format))
}

var something = &struct{}{}

func writeEvent(logs []*telemetry.EventLog, e any) {
	line, err := json.Marshal(e)
	if err != nil {
		return // metadata that JSON cannot have came as JSON
	}
	line = append(line, '\n')
	for _, l := range logs {
		l.Write(line)
	}
}

// openEvents opens the logs of a cluster's health checks, all or none.
func (m *Manager) openEvents(cfg *Config) (out []*telemetry.EventLog, err error) {
	if cfg.HealthCheck == nil {
		return nil, nil
	}
	for _, log := range cfg.HealthCheck.Events {
		if m.opts.Logs == nil {
			return nil, errors.New(log.Field + ": there is nothing that opens logs of health checks")
		}
		l, err := m.opts.Logs.OpenEvents(log.Path)
		if err != nil {
			closeEvents(out)
			return nil, fmt.Errorf("%s: %w", log.Field, err)
		}
		out = append(out, l)
	}
	return out, nil
}

func closeEvents(logs []*telemetry.EventLog) {
	for _, l := range logs {
		l.Close()
	}
}

// kind is what Envoy calls the kind of check.
func (c *HealthCheck) kind() string {
	switch {
	case c.TCP != nil:
		return "TCP"
	case c.GRPC != nil:
		return "GRPC"
	}
	return "HTTP"
}

// failureType is what Envoy calls the way in which a check failed.
func (v *verdict) failureType() string {
	switch {
	case v.timeout:
		return "NETWORK_TIMEOUT"
	case v.network:
		return "NETWORK"
	case v.passive:
		return "PASSIVE"
	}
	return "ACTIVE"
}

// tell writes what became of a check, which fill says, to the logs of the cluster's checks. c.mu is held.
func (c *Cluster) tell(k *checker, fill func(*checkEvent)) {
	if len(c.events) == 0 {
		return
	}
	h := k.h
	e := checkEvent{
		Checker: k.cfg.kind(), Host: h.eventAddress(), Cluster: c.name, Timestamp: eventTime{time.Now()},
		Locality: eventLocality{h.locality.Region, h.locality.Zone, h.locality.SubZone},
	}
	switch m := h.Endpoint().Metadata; {
	case len(m) > 0:
		e.Metadata = &eventMetadata{Filter: m}
	case c.cfg.Load().Type == StrictDNS, c.cfg.Load().Type == LogicalDNS: // whose hosts have some in Envoy, though empty
		e.Metadata = &eventMetadata{Filter: map[string]map[string]any{}}
	}
	fill(&e)
	writeEvent(c.events, &e)
}

func (h *Host) eventAddress() (out eventAddress) {
	switch a := h.Addr().(type) {
	case *net.TCPAddr:
		out.Socket = &eventSocket{Protocol: "TCP", Address: a.IP.String(), Port: a.Port}
	case *net.UnixAddr:
		out.Pipe = &eventPipe{Path: a.Name}
	}
	return out
}

// url is the host's address as Envoy writes it.
func (h *Host) url() string {
	if a := h.Addr(); a != nil {
		return a.String()
	}
	return h.key
}

// anomalyTypes are what Envoy calls the anomalies.
var anomalyTypes = [...]string{
	Consecutive5xx: "CONSECUTIVE_5XX", ConsecutiveGateway: "CONSECUTIVE_GATEWAY_FAILURE",
	ConsecutiveLocalOrigin: "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
	SuccessRate:            "SUCCESS_RATE", LocalSuccessRate: "SUCCESS_RATE_LOCAL_ORIGIN",
	FailurePercentage: "FAILURE_PERCENTAGE", LocalFailurePercentage: "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
	degradedAnswer: "DEGRADED",
}

// anomaly is how a host was found to be an outlier, with the rates that it was found by, in percent.
type anomaly struct {
	Anomaly
	percent, mean, floor float64
}

// tellEjection writes that h was found to be an outlier, and whether that has it ejected.
// c.mu is held.
func (c *Cluster) tellEjection(h *Host, found anomaly, enforced bool) {
	if c.m.opts.OutlierEvents == nil {
		return
	}
	e := outlierEvent{Type: anomalyTypes[found.Anomaly], Action: "EJECT", Enforced: enforced, SinceLast: secondsSince(h.outlier.returned)}
	switch found.Anomaly {
	case SuccessRate, LocalSuccessRate:
		e.Rate = &rateEvent{uint32(found.percent), uint32(found.mean), uint32(max(0, found.floor))}
	case FailurePercentage, LocalFailurePercentage:
		e.Percentage = &percentageEvent{uint32(found.percent)}
	default:
		e.Consecutive = something
	}
	c.tellOutlier(h, &e)
}

// tellReturn writes that h is ejected no longer. c.mu is held.
func (c *Cluster) tellReturn(h *Host) {
	if c.m.opts.OutlierEvents != nil {
		c.tellOutlier(h, &outlierEvent{Type: anomalyTypes[Consecutive5xx], Action: "UNEJECT", SinceLast: secondsSince(h.outlier.since)})
	}
}

func (c *Cluster) tellOutlier(h *Host, e *outlierEvent) {
	e.Timestamp, e.Cluster, e.URL, e.NumEjections = eventTime{time.Now()}, c.name, h.url(), h.outlier.ejections
	writeEvent([]*telemetry.EventLog{c.m.opts.OutlierEvents}, e)
}

// secondsSince is the time since a reading of the clock, nil where there was none.
func secondsSince(at int64) *uint64 {
	if at <= 0 {
		return nil
	}
	s := uint64(max(0, monotonic()-at) / int64(time.Second))
	return &s
}
