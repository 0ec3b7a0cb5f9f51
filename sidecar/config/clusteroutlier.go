package config

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// Envoy's times of outlier detection.
const (
	defaultInterval = 10 * time.Second
	defaultEjection = 30 * time.Second
	longestEjection = 300 * time.Second
)

// outlier reads passive health checking, with Envoy's defaults.
func outlier(m *clusterv3.Cluster, out *cluster.Config) error {
	o := m.GetOutlierDetection()
	if o == nil {
		return nil
	}
	value := func(v *wrapperspb.UInt32Value, absent int) int {
		if v == nil {
			return absent
		}
		return int(v.GetValue())
	}
	out.Outlier = &cluster.Outlier{
		Consecutive5xx:                  value(o.GetConsecutive_5Xx(), 5),
		EnforcingConsecutive5xx:         value(o.GetEnforcingConsecutive_5Xx(), 100),
		ConsecutiveGateway:              value(o.GetConsecutiveGatewayFailure(), 5),
		EnforcingConsecutiveGateway:     value(o.GetEnforcingConsecutiveGatewayFailure(), 0),
		SplitLocalOrigin:                o.GetSplitExternalLocalOriginErrors(),
		ConsecutiveLocalOrigin:          value(o.GetConsecutiveLocalOriginFailure(), 5),
		EnforcingConsecutiveLocalOrigin: value(o.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		EnforcingSuccessRate:            value(o.GetEnforcingSuccessRate(), 100),
		EnforcingLocalSuccessRate:       value(o.GetEnforcingLocalOriginSuccessRate(), 100),
		RateMinHosts:                    value(o.GetSuccessRateMinimumHosts(), 5),
		RateVolume:                      value(o.GetSuccessRateRequestVolume(), 100),
		StdevFactor:                     value(o.GetSuccessRateStdevFactor(), 1900),
		EnforcingFailurePercent:         value(o.GetEnforcingFailurePercentage(), 0),
		EnforcingLocalFailurePercent:    value(o.GetEnforcingFailurePercentageLocalOrigin(), 0),
		FailurePercent:                  value(o.GetFailurePercentageThreshold(), 85),
		FailureMinHosts:                 value(o.GetFailurePercentageMinimumHosts(), 5),
		FailureVolume:                   value(o.GetFailurePercentageRequestVolume(), 50),
		MaxEjectionPercent:              value(o.GetMaxEjectionPercent(), 10),
		AlwaysEjectOne:                  o.GetAlwaysEjectOneHost().GetValue(),
	}
	out.Outlier.DetectDegraded = o.GetDetectDegradedHosts().GetValue()
	if u := o.GetSuccessfulActiveHealthCheckUnejectHost(); u != nil {
		out.Outlier.KeepOnCheck = !u.GetValue()
	}
	for _, f := range []struct {
		d      *durationpb.Duration
		to     *time.Duration
		absent time.Duration
		name   string
	}{
		{o.GetInterval(), &out.Outlier.Interval, defaultInterval, "interval"},
		{o.GetBaseEjectionTime(), &out.Outlier.BaseEjectionTime, defaultEjection, "base_ejection_time"},
		{o.GetMaxEjectionTime(), &out.Outlier.MaxEjectionTime, 0, "max_ejection_time"},
		{o.GetMaxEjectionTimeJitter(), &out.Outlier.EjectionJitter, 0, "max_ejection_time_jitter"},
	} {
		*f.to = f.absent
		if f.d == nil {
			continue
		}
		var err error
		if *f.to, err = duration(f.d, "outlier_detection."+f.name); err != nil {
			return err
		}
	}
	if o.GetMaxEjectionTime() == nil {
		out.Outlier.MaxEjectionTime = max(longestEjection, out.Outlier.BaseEjectionTime)
	}
	if out.Outlier.MaxEjectionTime < out.Outlier.BaseEjectionTime {
		return fail("outlier_detection.max_ejection_time", "is below base_ejection_time")
	}
	return nil
}
