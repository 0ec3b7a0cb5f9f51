package config

import (
	"cmp"
	"math"
	"slices"

	"google.golang.org/protobuf/types/known/wrapperspb"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
)

// http2Options are Envoy's defaults and what o says otherwise; o may be nil.
func http2Options(o *corev3.Http2ProtocolOptions, path string) (*http2.Config, error) {
	c := http2.Default()
	for _, f := range []struct {
		from *wrapperspb.UInt32Value
		to   func(uint32)
	}{
		{o.GetHpackTableSize(), func(v uint32) { c.HeaderTableSize = v }},
		{o.GetMaxConcurrentStreams(), func(v uint32) { c.MaxConcurrentStreams = v }},
		{o.GetInitialStreamWindowSize(), func(v uint32) { c.StreamWindow = v }},
		{o.GetInitialConnectionWindowSize(), func(v uint32) { c.ConnWindow = v }},
		{o.GetMaxOutboundFrames(), func(v uint32) { c.MaxOutboundFrames = int(v) }},
		{o.GetMaxOutboundControlFrames(), func(v uint32) { c.MaxOutboundControlFrames = int(v) }},
		{o.GetMaxConsecutiveInboundFramesWithEmptyPayload(), func(v uint32) { c.MaxEmptyFrames = int(v) }},
		{o.GetMaxInboundPriorityFramesPerStream(), func(v uint32) { c.MaxPriorityPerStream = int(v) }},
		{o.GetMaxInboundWindowUpdateFramesPerDataFrameSent(), func(v uint32) { c.MaxWindowUpdatesPerData = int(v) }},
	} {
		if f.from != nil {
			f.to(f.from.GetValue())
		}
	}
	for _, f := range []struct {
		from *wrapperspb.UInt64Value
		to   *int
	}{{o.GetStreamResetBurst(), &c.ResetBurst}, {o.GetStreamResetRate(), &c.ResetRate}} {
		if f.from != nil {
			*f.to = int(min(f.from.GetValue(), math.MaxInt32)) // more never runs out either
		}
	}
	growWindows(c, o)
	c.AllowConnect = o.GetAllowConnect()
	c.Huffman = o.GetEnableHuffmanEncoding().GetValue()
	c.RejectObsText = o.GetDisallowObsText().GetValue()
	c.MaxFieldBytes = int(o.GetMaxHeaderFieldSizeKb().GetValue()) << 10
	c.MalformedEndsConnection = !o.GetOverrideStreamErrorOnInvalidHttpMessage().GetValue()
	if o.GetOverrideStreamErrorOnInvalidHttpMessage() == nil {
		//lint:ignore SA1019 deprecated, and Envoy takes it still
		c.MalformedEndsConnection = !o.GetStreamErrorOnInvalidHttpMessaging()
	}
	var err error
	if c.Keepalive, err = http2KeepAlive(o.GetConnectionKeepalive(), path+".connection_keepalive"); err != nil {
		return nil, err
	}
	for i, s := range o.GetCustomSettingsParameters() {
		here := at(path+".custom_settings_parameters", i)
		if s.GetIdentifier() == nil || s.GetValue() == nil || s.GetIdentifier().GetValue() > 0xffff {
			return nil, fail(here, "needs an identifier of 16 bits and a value")
		}
		setting := http2.Setting{ID: uint16(s.GetIdentifier().GetValue()), Value: s.GetValue().GetValue()}
		if slices.ContainsFunc(c.CustomSettings, func(o http2.Setting) bool { return o.ID == setting.ID && o.Value != setting.Value }) {
			return nil, fail(here, "identifier %#x has another value before", setting.ID)
		}
		c.CustomSettings = append(c.CustomSettings, setting)
	}
	if err := c.Validate(); err != nil {
		return nil, fail(path, "%v", err)
	}
	return c, nil
}

// growWindows has the windows of streams that are read grow where that can take nothing from
// others: where the connection's window, as configured, holds as many streams as are allowed and
// more. They grow into the rest of it; a MiB is for what waits to be given back, and for answers
// that are whole, of whose streams others may have the place, and are not read yet.
func growWindows(c *http2.Config, o *corev3.Http2ProtocolOptions) {
	if o.GetMaxConcurrentStreams() == nil || o.GetInitialStreamWindowSize() == nil || o.GetInitialConnectionWindowSize() == nil {
		return
	}
	spare := int64(c.ConnWindow) - int64(c.StreamWindow)*int64(c.MaxConcurrentStreams) - 1<<20
	if spare <= 0 || c.StreamWindow >= grownWindow {
		return
	}
	c.MaxStreamWindow, c.SpareWindow = grownWindow, uint32(spare)
}

// grownWindow is how far they grow.
const grownWindow = 1 << 20

func http2KeepAlive(k *corev3.KeepaliveSettings, path string) (out http2.Keepalive, err error) {
	if k == nil {
		return out, nil
	}
	if out.Interval, err = duration(k.GetInterval(), path+".interval"); err != nil {
		return out, err
	}
	if out.Timeout, err = duration(k.GetTimeout(), path+".timeout"); err != nil {
		return out, err
	}
	if out.Idle, err = duration(k.GetConnectionIdleInterval(), path+".connection_idle_interval"); err != nil {
		return out, err
	}
	out.Jitter = 0.15 // Envoy's
	if j := k.GetIntervalJitter(); j != nil {
		out.Jitter = j.GetValue() / 100
	}
	return out, nil
}

// fieldsFit checks that one field may not be longer than a head, as Envoy does: kb is how long
// a head may be, 0 for Envoy's default.
func fieldsFit(c *http2.Config, kb int, path, heads string) error {
	if most := cmp.Or(kb, 60); c.MaxFieldBytes > most<<10 {
		return fail(path+".max_header_field_size_kb", "is more than the %d KB of %s", most, heads)
	}
	return nil
}
