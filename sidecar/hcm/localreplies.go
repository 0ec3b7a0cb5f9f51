package hcm

import (
	"fmt"
	"strings"

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
	json        bool
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
	out := &replyForm{contentType: c.ContentType, json: c.Format.JSON}
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

// rewriteReply applies the rules, if there are any, to the answer in x.resp, whose text
// is text. It returns the text that is to be sent, and has the head describe it.
func (x *exchange) rewriteReply(text string) string {
	if x.m.replies == nil {
		x.describeReply(text, "text/plain", false)
		return text
	}
	body, kind, ruled := x.applyReplyRules(text)
	x.describeReply(body, kind, body != text && !ruled)
	return body
}

// describeReply sets what the head says of a body. The type is the one that is there
// already, by a route or a rule, unless it is of another text.
func (x *exchange) describeReply(body, kind string, another bool) {
	f := &x.resp.Fields
	x.resp.ContentLength = int64(len(body))
	switch {
	case body == "":
		f.DelID(message.ContentType)
	case another || !f.Has(message.ContentType):
		f.SetID(message.ContentType, kind)
	}
}

// applyReplyRules returns what the rules make of a text, and its type. It is ruled where
// a mapper has said the type.
func (x *exchange) applyReplyRules(text string) (body, kind string, ruled bool) {
	rules, f := x.m.replies, &x.resp.Fields
	rec := x.record()
	rec.LocalReply, rec.Duration = text, sinceMono(x.startMono)
	body, kind = text, "text/plain"
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
		before, _ := f.ByID(message.ContentType)
		m.add.Apply(f, x, &x.scratch)
		after, _ := f.ByID(message.ContentType)
		ruled = before != after
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
		body, kind = message.View(x.replyBody), form.contentType
		if form.json && x.speaksGRPC() {
			body = strings.TrimSuffix(body, "\n") // which ends JSON, and is no part of a message
		}
	}
	rec.LocalReply = ""
	return body, kind, ruled
}
