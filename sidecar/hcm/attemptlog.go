package hcm

import (
	"errors"
	"net"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// UpstreamLog is Envoy's upstream_log: a record of each attempt, whose request is what the host was
// sent, and whose answer is the host's.
type UpstreamLog struct {
	Logs []telemetry.AccessLogConfig
	// OnStream logs an attempt also when it has its connection.
	OnStream bool `json:",omitempty"`
	// Interval logs an attempt again and again while it lasts; 0 for never.
	Interval time.Duration `json:",omitempty"`
}

// attemptLogs are the logs that attempts have in a connection manager.
type attemptLogs struct {
	log      *telemetry.Log
	onStream bool
	every    int64 // 0 for never
}

// openLogs opens the logs of requests and attempts.
func (m *Manager) openLogs(logs *telemetry.Logs) (err error) {
	u := m.cfg.UpstreamLog
	if len(m.cfg.AccessLog) == 0 && u == nil {
		return nil
	}
	if logs == nil {
		return errors.New("there is nothing that writes access logs")
	}
	if m.access, err = logs.Open(m.cfg.AccessLog); err != nil || u == nil {
		return err
	}
	a := &attemptLogs{onStream: u.OnStream, every: int64(u.Interval)}
	if a.log, err = logs.Open(u.Logs); err != nil {
		m.access.Close()
		return err
	}
	m.attempts = a
	return nil
}

func (m *Manager) closeLogs() {
	m.access.Close()
	if m.attempts != nil {
		m.attempts.log.Close()
	}
}

// attemptLog is what the log of attempts tells of one beyond what the attempt knows.
type attemptLog struct {
	start          time.Time
	begun          int64
	sent, received int64            // by the attempts before it
	resp           message.Response // the head as it came, before anything changed it
	trailers       *message.Fields  // and the trailers, nil for none
	grpc           string           // their status
	reporter       *reporter        // nil for none
	// of another exchange's attempt that was chosen: what it sent, nil for what the exchange has,
	// and whether another joined it as its time was over.
	req  *message.Request
	late bool
}

// startLog begins an attempt's part of the log.
func (a *attempt) startLog() {
	x := a.x
	l := &attemptLog{start: time.Now(), sent: a.sent, received: a.received}
	l.begun = monotonicOf(l.start)
	a.log = l
	if every := x.m.attempts.every; every > 0 {
		p := &reporter{log: x.m.attempts.log, every: every, begun: l.begun, attempt: x.reporter}
		if of := x.reporter; of != nil {
			p.before = of.sent.Load()
		}
		p.copyRequest(x.req)
		l.reporter = p
		l.update(a)
		p.start(x.m.timers)
	}
}

// seeClient has an attempt beside an exchange tell who asks as that does.
func (x *exchange) seeClient(of *exchange) {
	if x.peer = of.peer; of.peer == &of.own {
		x.own, x.namedIP = of.own, of.namedIP
		x.peer, x.named.IP = &x.own, x.namedIP[len(x.namedIP)-len(of.named.IP):]
	}
}

// adopted keeps what the exchange of an attempt that was chosen knows of it.
func (l *attemptLog) adopted(from *exchange) {
	if l == nil {
		return
	}
	l.req, l.late = new(message.Request), from.late.Load()
	copyRequest(l.req, from.req)
}

// connected logs that the attempt has its connection.
func (l *attemptLog) connected(a *attempt) {
	if l == nil {
		return
	}
	if a.x.m.attempts.onStream {
		l.write(a, telemetry.LogAttemptConnected, 0)
	}
	l.update(a)
}

// answered keeps the head of the answer, which is the exchange's from here on.
func (l *attemptLog) answered(a *attempt) {
	if l == nil {
		return
	}
	l.resp.Status, l.resp.Upgrade = a.resp.Status, a.resp.Upgrade
	l.resp.Fields.CopyFrom(&a.resp.Fields)
	l.update(a)
}

// trailed keeps the answer's trailers.
func (l *attemptLog) trailed(t *message.Fields) {
	if l == nil || t == nil {
		return
	}
	l.trailers = new(message.Fields)
	l.trailers.CopyFrom(t)
	l.grpc, _ = l.trailers.ByID(message.GRPCStatus)
}

// update tells the reporter what has become known.
func (l *attemptLog) update(a *attempt) {
	if l.reporter == nil {
		return
	}
	r := l.record(a)
	l.reporter.update(a.x, r, &l.resp, telemetry.LogAttemptPeriodic)
	r.Release()
}

// stop has nothing more reported when it returns.
func (l *attemptLog) stop(a *attempt) {
	if l != nil && l.reporter != nil {
		l.reporter.stop(a.x.m.timers)
		l.reporter = nil
	}
}

// endLog logs an attempt that has ended with o; flags are those of its exchange where it was
// answered.
func (a *attempt) endLog(o outcome, flags telemetry.Flags) {
	l := a.log
	l.stop(a)
	if o == responded {
		flags &= telemetry.FlagUpstreamConnTermination | telemetry.FlagUpstreamReset | telemetry.FlagUpstreamProtocolError
		if l.late || a.x.late.Load() {
			flags |= telemetry.FlagUpstreamRequestTimeout
		}
	} else {
		flags = o.flagsOfAttempt()
	}
	l.write(a, telemetry.LogAttemptEnd, flags)
	a.log = nil
}

// flagsOfAttempt are those of an attempt by itself: as in Envoy it knows nothing of what the
// exchange as a whole came to, whose times and whose client's departure end it.
func (o outcome) flagsOfAttempt() telemetry.Flags {
	switch o {
	case tryIdle:
		return telemetry.FlagStreamIdleTimeout
	case tryTimedOut, overflow, connectFailed, connectTimeout, reset, remoteReset, refused, brokeProtocol, resetProtocol:
		return o.flags()
	}
	return 0
}

func (l *attemptLog) write(a *attempt, t telemetry.LogType, flags telemetry.Flags) {
	r := l.record(a)
	r.Type, r.Duration, r.Flags = t, sinceMono(l.begun), flags
	a.x.m.attempts.log.Log(r)
	r.Release()
}

// record is what is known of the attempt. Bytes are those of bodies: received from the host, sent to it.
func (l *attemptLog) record(a *attempt) *telemetry.Record {
	x := a.x
	r := a.recordOfClient()
	r.Start, r.Flags = l.start, 0
	r.ConnectionTermination, r.LocalClose = "", ""
	r.RequestHeaders, r.ResponseHeaders = x.req, &l.resp
	r.Code, r.HealthCheck = l.resp.Status, x.checksHealth()
	if l.req != nil {
		r.RequestHeaders = l.req
	}
	a.tell(r)
	r.Protocol, r.UpstreamClose = r.UpstreamProtocol, telemetry.CloseNormal
	if a.info != nil {
		r.Attempted = a
	}
	r.BytesReceived, r.BytesSent = a.received-l.received, a.sent-l.sent
	x.show(r)
	ofAttempt(&r.Moments, l.begun)
	r.GRPCStatus = l.grpc
	if r.ResponseTrailers = nil; l.trailers != nil {
		r.ResponseTrailers = l.trailers
	}
	return r
}

// recordOfClient is a record of who asks and by which route. A mirrored request is nobody's, and has
// no route: there is its cluster alone, as in Envoy.
func (a *attempt) recordOfClient() *telemetry.Record {
	x := a.x
	if x.shadow {
		r := telemetry.NewRecord()
		r.Direction, r.Listener, r.Workload, r.Service = x.d.Direction, x.d.Listener, x.d.Workload, x.d.Service
		r.Cluster, r.ClusterStat = x.cluster.Name(), x.clusterStat()
		return r
	}
	r := x.d.NewRecord()
	r.DownstreamRemote = x.remoteAddr()
	if x.decided {
		downstream.Authorize(r, x.decision)
	}
	x.tellRoute(r)
	return r
}

// Attempted implements telemetry.Attempts, of an attempt by itself.
func (a *attempt) Attempted(i int) (addr net.Addr, hostname string, ok bool) {
	if i > 0 || a.host == nil {
		return nil, "", false
	}
	return a.host.Addr(), a.host.Hostname(), true
}

// ofAttempt leaves of the moments those of the attempt, which began at begun.
func ofAttempt(m *telemetry.Moments, begun int64) {
	was := *m
	*m = telemetry.Moments{}
	for _, n := range attemptMoments {
		m[n] = was[n]
	}
	if was[telemetry.AttemptBegan] != 0 {
		m[telemetry.RequestBegan] = begun
	}
}
