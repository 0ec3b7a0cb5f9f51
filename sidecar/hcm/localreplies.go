package hcm

import (
	"cmp"
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
	Body *telemetry.BodyFormat
}

// ReplyMapper is Envoy's ResponseMapper.
type ReplyMapper struct {
	Filter telemetry.Filter
	Status int     // 0 leaves it
	Body   *string // nil leaves it
	Format *telemetry.BodyFormat
	Add    []route.HeaderAdd
}

// replyRules are LocalReplies, compiled.
type replyRules struct {
	mappers []replyMapper
	body    *telemetry.Body
}

type replyMapper struct {
	*ReplyMapper
	form *telemetry.Body
	add  route.Changes
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
		if m.add, err = route.NewChanges(nil, m.Add, message.ResponseSingles); err != nil {
			return nil, fmt.Errorf("local replies: mapper %d: %w", i, err)
		}
		out.mappers = append(out.mappers, m)
	}
	return out, nil
}

func newReplyForm(c *telemetry.BodyFormat) (*telemetry.Body, error) {
	if c == nil {
		return nil, nil
	}
	return telemetry.NewBody(c)
}

// rewriteReply applies the rules, if there are any, to the answer in x.resp, whose text
// is text, of a content type, "" for none of its own. It returns the text that is to be sent, and has the head describe it.
func (x *exchange) rewriteReply(text, kind string) string {
	if kind != "" {
		x.resp.Fields.SetID(message.ContentType, kind)
	}
	kind = cmp.Or(kind, "text/plain")
	if x.m.replies == nil {
		x.describeReply(text, kind, false)
		return text
	}
	body, kind, ruled := x.applyReplyRules(text, kind)
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
func (x *exchange) applyReplyRules(text, of string) (body, kind string, ruled bool) {
	rules, f := x.m.replies, &x.resp.Fields
	rec := x.record()
	rec.LocalReply, rec.Duration = text, sinceMono(x.startMono)
	body, kind = text, of
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
		x.replyBody = form.Append(x.replyBody[:0], rec)
		body, kind = message.View(x.replyBody), cmp.Or(form.ContentType, "text/plain")
		if kind == "application/json" && x.speaksGRPC() {
			body = strings.TrimSuffix(body, "\n") // which ends JSON, and is no part of a message
		}
	}
	rec.LocalReply = ""
	return body, kind, ruled
}
