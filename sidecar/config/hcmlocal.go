package config

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func (d *decoder) hcmLocalReplies(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	c := m.GetLocalReplyConfig()
	if c == nil {
		return nil
	}
	path += ".local_reply_config"
	out.LocalReplies = &hcm.LocalReplies{}
	if out.LocalReplies.Body, err = d.replyFormat(c.GetBodyFormat(), path+".body_format"); err != nil {
		return err
	}
	for i, mm := range c.GetMappers() {
		mapper, err := d.replyMapper(mm, at(path+".mappers", i))
		if err != nil {
			return err
		}
		out.LocalReplies.Mappers = append(out.LocalReplies.Mappers, *mapper)
	}
	return nil
}

func (d *decoder) replyMapper(m *hcmv3.ResponseMapper, path string) (*hcm.ReplyMapper, error) {
	out := &hcm.ReplyMapper{Status: int(m.GetStatusCode().GetValue())}
	var err error
	if out.Filter, err = d.logFilter(m.GetFilter(), path+".filter"); err != nil {
		return nil, err
	}
	if out.Filter == nil {
		return nil, fail(path+".filter", "is missing")
	}
	if b := m.GetBody(); b != nil {
		text, err := d.text(b, path+".body")
		if err != nil {
			return nil, err
		}
		out.Body = &text
	}
	if out.Format, err = d.replyFormat(m.GetBodyFormatOverride(), path+".body_format_override"); err != nil {
		return nil, err
	}
	out.Add, err = headerAdds(m.GetHeadersToAdd(), path+".headers_to_add", ofResponse)
	return out, err
}

func (d *decoder) replyFormat(m *corev3.SubstitutionFormatString, path string) (*telemetry.BodyFormat, error) {
	if m == nil {
		return nil, nil
	}
	out := &telemetry.BodyFormat{ContentType: m.GetContentType()}
	return out, d.formatString(m, &out.Format, path)
}
