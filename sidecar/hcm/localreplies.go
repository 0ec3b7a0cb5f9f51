package hcm

import (
	"fmt"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// LocalReplies is Envoy's LocalReplyConfig: what becomes of answers of our own. The
// first mapper whose filter takes the exchange changes it.
type LocalReplies struct {
	Mappers []ReplyMapper
	// Body is the form of the body, where the mapper has none of its own; nil leaves
	// the text as it is.
	Body *ReplyFormat
}

// ReplyMapper is Envoy's ResponseMapper.
type ReplyMapper struct {
	Filter telemetry.Filter
	Status int     // 0 leaves it
	Body   *string // nil leaves it
	Format *ReplyFormat
	Add    []route.HeaderAdd
}

// ReplyFormat is a body with operators. Format is its text or its members, without a
// path.
type ReplyFormat struct {
	Format      telemetry.AccessLogConfig
	ContentType string
}

// replyRules are LocalReplies, compiled.
type replyRules struct {
	mappers []replyMapper
	body    *replyForm
}

type replyMapper struct {
	*ReplyMapper
	form *replyForm
	add  route.Changes
}

type replyForm struct {
	format      *telemetry.Format
	contentType string
}

func newReplyRules(c *LocalReplies) (*replyRules, error) {
	if c == nil {
		return nil, nil
	}
	out := &replyRules{}
	var err error
	if out.body, err = newReplyForm(c.Body); err != nil {
		return nil, fmt.Errorf("local replies: %w", err)
	}
	for i := range c.Mappers {
		m := replyMapper{ReplyMapper: &c.Mappers[i]}
		if m.form, err = newReplyForm(m.Format); err != nil {
			return nil, fmt.Errorf("local replies: mapper %d: %w", i, err)
		}
		if m.add, err = route.NewChanges(nil, m.Add); err != nil {
			return nil, fmt.Errorf("local replies: mapper %d: %w", i, err)
		}
		out.mappers = append(out.mappers, m)
	}
	return out, nil
}

func newReplyForm(c *ReplyFormat) (*replyForm, error) {
	if c == nil {
		return nil, nil
	}
	out := &replyForm{contentType: c.ContentType}
	var err error
	if c.Format.JSON {
		out.format, err = telemetry.CompileAccessLog(c.Format)
		if out.contentType == "" {
			out.contentType = "application/json"
		}
	} else {
		out.format, err = telemetry.ParseFormat(c.Format.Format)
		if out.contentType == "" {
			out.contentType = "text/plain"
		}
	}
	return out, err
}

// rewriteReply applies the rules to the answer in x.resp, whose text is body. It
// returns the text that is to be sent.
func (x *exchange) rewriteReply(body string) string {
	rules, f := x.m.replies, &x.resp.Fields
	rec := x.record()
	rec.LocalReply, rec.Duration = body, sinceMono(x.startMono)
	form := rules.body
	for i := range rules.mappers {
		m := &rules.mappers[i]
		if !m.Filter.Passes(rec) {
			continue
		}
		if m.Body != nil {
			body = *m.Body
			rec.LocalReply = body
		}
		m.add.Apply(f, x, &x.scratch)
		if m.Status != 0 {
			x.status, x.resp.Status = m.Status, m.Status
		}
		if m.form != nil {
			form = m.form
		}
		break
	}
	if form != nil {
		rec = x.record()
		rec.LocalReply = body
		x.replyBody = form.format.AppendBody(x.replyBody[:0], rec)
		body = message.View(x.replyBody)
		f.SetID(message.ContentType, form.contentType)
	}
	rec.LocalReply = ""
	switch {
	case body == "":
		f.DelID(message.ContentType)
	case !f.Has(message.ContentType):
		f.AddID(message.ContentType, "text/plain")
	}
	x.resp.ContentLength = int64(len(body))
	return body
}
