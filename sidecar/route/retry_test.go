package route

import (
	"math"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

func response(status int, headers ...string) *message.Response {
	r := &message.Response{Status: status}
	for i := 0; i < len(headers); i += 2 {
		r.Fields.Add(headers[i], headers[i+1])
	}
	return r
}

func TestRetriesFailure(t *testing.T) {
	all := map[Failure]string{NotConnected: "connect", Refused: "refused", ResetUnsent: "unsent", Reset: "reset"}
	for on, want := range map[RetryOn][]Failure{
		RetryConnectFailure:     {NotConnected},
		RetryRefusedStream:      {Refused, ResetUnsent},
		RetryResetBeforeRequest: {NotConnected, ResetUnsent},
		RetryReset:              {NotConnected, Refused, ResetUnsent, Reset},
		Retry5xx:                {NotConnected, Refused, ResetUnsent, Reset},
		RetryGatewayError:       {NotConnected, Refused, ResetUnsent, Reset},
		RetryRetriable4xx:       nil,
		RetryGRPCUnavailable:    nil,
		RetryResetIdempotent:    nil,
	} {
		p := &RetryPolicy{On: on}
		for f, name := range all {
			hit := false
			for _, w := range want {
				hit = hit || w == f
			}
			if got := p.RetriesFailure(f, false); got != hit {
				t.Errorf("%b retries %s: %v", on, name, got)
			}
		}
	}
	if p := (&RetryPolicy{On: RetryResetIdempotent}); !p.RetriesFailure(Reset, true) {
		t.Error("an idempotent request is not sent again")
	}
}

func TestRetriesResponse(t *testing.T) {
	for _, c := range []struct {
		name string
		p    RetryPolicy
		r    *message.Response
		want bool
	}{
		{"5xx", RetryPolicy{On: Retry5xx}, response(500), true},
		{"5xx, 499", RetryPolicy{On: Retry5xx}, response(499), false},
		{"gateway", RetryPolicy{On: RetryGatewayError}, response(503), true},
		{"gateway, 500", RetryPolicy{On: RetryGatewayError}, response(500), false},
		{"4xx", RetryPolicy{On: RetryRetriable4xx}, response(409), true},
		{"4xx, 404", RetryPolicy{On: RetryRetriable4xx}, response(404), false},
		{"codes", RetryPolicy{On: RetryStatusCodes, StatusCodes: []int{418}}, response(418), true},
		{"codes without the condition", RetryPolicy{On: Retry5xx, StatusCodes: []int{418}}, response(418), false},
		{"rate limited beats 5xx", RetryPolicy{On: Retry5xx}, response(503, "x-envoy-ratelimited", "true"), false},
		{"rate limited", RetryPolicy{On: RetryRateLimited}, response(429, "x-envoy-ratelimited", "true"), true},
		{"429 alone", RetryPolicy{On: RetryRateLimited}, response(429), false},
		{"header", RetryPolicy{On: RetryHeaders, Headers: []HeaderMatch{{Name: "x-a", Present: ptr(true)}, {Name: "x-r", Value: &StringMatch{Exact: ptr("1")}}}}, response(200, "X-R", "1"), true},
		{"status as a header", RetryPolicy{On: RetryHeaders, Headers: []HeaderMatch{{Name: ":status", Value: &StringMatch{Prefix: ptr("20")}}}}, response(200), true},
		{"header, none", RetryPolicy{On: RetryHeaders, Headers: []HeaderMatch{{Name: "x-r", Present: ptr(true)}}}, response(200), false},
		{"cancelled", RetryPolicy{On: RetryGRPCCancelled}, response(200, "grpc-status", "1"), true},
		{"deadline", RetryPolicy{On: RetryGRPCDeadlineExceeded}, response(200, "grpc-status", "4"), true},
		{"deadline with a zero", RetryPolicy{On: RetryGRPCDeadlineExceeded}, response(200, "grpc-status", "04"), true},
		{"no such status", RetryPolicy{On: anyGRPC}, response(200, "grpc-status", "15"), false},
		{"no status", RetryPolicy{On: anyGRPC}, response(200), false},
		{"no number", RetryPolicy{On: anyGRPC}, response(200, "grpc-status", "4x"), false},
		{"exhausted", RetryPolicy{On: RetryGRPCResourceExhausted}, response(200, "grpc-status", "8"), true},
		{"internal", RetryPolicy{On: RetryGRPCInternal}, response(200, "grpc-status", "13"), true},
		{"unavailable", RetryPolicy{On: RetryGRPCUnavailable}, response(200, "grpc-status", "14"), true},
		{"another", RetryPolicy{On: RetryGRPCUnavailable}, response(200, "grpc-status", "13"), false},
		{"ok", RetryPolicy{On: anyGRPC}, response(200, "grpc-status", "0"), false},
		{"status in trailers", RetryPolicy{On: anyGRPC}, response(200), false},
	} {
		if got := c.p.RetriesResponse(c.r); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestAdmits(t *testing.T) {
	p := RetryPolicy{RequestHeaders: []HeaderMatch{{Name: ":method", Value: &StringMatch{Exact: ptr("GET")}}, {Name: "x-retry", Present: ptr(true)}}}
	if !p.Admits(request("GET", "h", "/")) || !p.Admits(request("POST", "h", "/", "x-retry", "1")) || p.Admits(request("POST", "h", "/")) {
		t.Error("any of the matchers admits, and nothing else")
	}
	if !(&RetryPolicy{}).Admits(request("POST", "h", "/")) {
		t.Error("without matchers every request is admitted")
	}
}

func TestBackOff(t *testing.T) {
	p := RetryPolicy{BackOffBase: 10 * time.Millisecond, BackOffMax: 50 * time.Millisecond}
	for n, window := range []time.Duration{1: 10 * time.Millisecond, 2: 20 * time.Millisecond, 3: 40 * time.Millisecond, 4: 50 * time.Millisecond, 60: 50 * time.Millisecond} {
		if window == 0 {
			continue
		}
		longest := time.Duration(0)
		for range 2000 {
			longest = max(longest, p.BackOff(n))
		}
		if longest > window || longest < window*9/10 {
			t.Errorf("attempt %d waits up to %v, want %v", n, longest, window)
		}
	}
}

// TestLongBackOff: no base is so long that the windows of later attempts overflow.
func TestLongBackOff(t *testing.T) {
	for _, p := range []RetryPolicy{{BackOffBase: 24 * time.Hour}, {BackOffBase: 24 * time.Hour, BackOffMax: 48 * time.Hour}, {BackOffBase: math.MaxInt64 - 1}} {
		for n := range 40 {
			if d := p.BackOff(n); d < 0 || p.BackOffMax > 0 && d > p.BackOffMax {
				t.Fatalf("attempt %d of base %v: %v", n, p.BackOffBase, d)
			}
		}
	}
}

func TestRateLimitedBackOff(t *testing.T) {
	now := time.Unix(1000, 0)
	p := RetryPolicy{RateLimited: &RateLimitedBackOff{Headers: []ResetHeader{{Name: "retry-after"}, {Name: "x-reset", Unix: true}}, Max: time.Minute}}
	for _, c := range []struct {
		name string
		r    *message.Response
		want time.Duration
	}{
		{"seconds", response(429, "Retry-After", "10"), 10 * time.Second},
		{"unix time", response(429, "x-reset", "1020"), 20 * time.Second},
		{"too long, the next is asked", response(429, "retry-after", "100", "x-reset", "1020"), 20 * time.Second},
		{"past", response(429, "x-reset", "900"), 0},
		{"zero", response(429, "retry-after", "0"), 0},
		{"no number", response(429, "retry-after", "soon"), 0},
		{"huge", response(429, "retry-after", "18446744073709551615"), 0},
		{"none", response(429), 0},
	} {
		for range 100 {
			d, ok := p.RateLimitedBackOff(c.r, now)
			if ok != (c.want > 0) || d < c.want || d > c.want*3/2 {
				t.Fatalf("%s: %v %v, want %v to %v", c.name, d, ok, c.want, c.want*3/2)
			}
		}
	}
	if _, ok := (&RetryPolicy{}).RateLimitedBackOff(response(429, "retry-after", "1"), now); ok {
		t.Error("a policy without rate_limited_retry_back_off waits by headers")
	}
}

func TestTimeouts(t *testing.T) {
	grpc := func(v string) *message.Request {
		return request("POST", "h", "/", "content-type", "application/grpc", "grpc-timeout", v)
	}
	plain := request("GET", "h", "/")
	for _, c := range []struct {
		name   string
		f      Forward
		retry  *RetryPolicy
		req    *message.Request
		total  time.Duration
		perTry time.Duration
	}{
		{"route", Forward{Timeout: time.Second}, nil, plain, time.Second, 0},
		{"per try", Forward{Timeout: time.Second}, &RetryPolicy{PerTryTimeout: 100 * time.Millisecond}, plain, time.Second, 100 * time.Millisecond},
		{"per try is longer", Forward{Timeout: time.Second}, &RetryPolicy{PerTryTimeout: time.Second}, plain, time.Second, 0},
		{"per try alone", Forward{}, &RetryPolicy{PerTryTimeout: time.Second}, plain, 0, time.Second},
		{"grpc-timeout is not asked", Forward{Timeout: time.Second}, nil, grpc("10m"), time.Second, 0},
		{"grpc-timeout", Forward{Timeout: time.Second, GRPCLimit: &GRPCLimit{}}, nil, grpc("10S"), 10 * time.Second, 0},
		{"grpc-timeout, none", Forward{Timeout: time.Second, GRPCLimit: &GRPCLimit{}}, nil, request("POST", "h", "/", "content-type", "application/grpc"), 0, 0},
		{"grpc-timeout, too long", Forward{GRPCLimit: &GRPCLimit{Max: time.Second}}, nil, grpc("10S"), time.Second, 0},
		{"grpc-timeout, offset", Forward{GRPCLimit: &GRPCLimit{Offset: time.Second}}, nil, grpc("10S"), 9 * time.Second, 0},
		{"grpc-timeout, offset too great", Forward{GRPCLimit: &GRPCLimit{Offset: time.Second}}, nil, grpc("1S"), time.Second, 0},
		{"not gRPC", Forward{Timeout: time.Second, GRPCLimit: &GRPCLimit{Max: time.Minute}}, nil, plain, time.Second, 0},
		{"stream duration", Forward{Timeout: time.Second, StreamDuration: &StreamDuration{}}, nil, plain, 0, 0},
	} {
		c.f.Cluster, c.f.Retry = "c", c.retry
		s := single(t, Route{Match: Match{Prefix: ptr("/")}, Forward: &c.f}).Select(c.req, nil, 0)
		got := s.Timeouts(c.req)
		if got.Total != c.total || got.PerTry != c.perTry {
			t.Errorf("%s: total %v, per try %v; want %v and %v", c.name, got.Total, got.PerTry, c.total, c.perTry)
		}
	}
}

func TestExpected(t *testing.T) {
	for _, c := range []struct {
		t       Timeouts
		elapsed time.Duration
		want    time.Duration
	}{
		{Timeouts{}, 0, 0},
		{Timeouts{Total: time.Second}, 0, time.Second},
		{Timeouts{Total: time.Second}, 300 * time.Millisecond, 700 * time.Millisecond},
		{Timeouts{Total: time.Second}, 2 * time.Second, time.Millisecond},
		{Timeouts{Total: time.Second, PerTry: 100 * time.Millisecond}, 0, 100 * time.Millisecond},
		{Timeouts{Total: time.Second, PerTry: 100 * time.Millisecond, hedges: true}, 0, time.Second},
		{Timeouts{PerTry: 100 * time.Millisecond}, time.Hour, 100 * time.Millisecond},
	} {
		if got := c.t.Expected(c.elapsed); got != c.want {
			t.Errorf("%+v after %v: %v, want %v", c.t, c.elapsed, got, c.want)
		}
	}
}

func TestMaxDuration(t *testing.T) {
	d := func(v time.Duration) *time.Duration { return &v }
	for _, c := range []struct {
		name string
		s    *StreamDuration
		grpc string
		want time.Duration
	}{
		{"not configured", nil, "1S", time.Hour},
		{"empty", &StreamDuration{}, "1S", time.Hour},
		{"max", &StreamDuration{Max: d(time.Minute)}, "1S", time.Minute},
		{"none", &StreamDuration{Max: d(0)}, "", 0},
		{"grpc", &StreamDuration{Max: d(time.Minute), GRPCMax: d(0)}, "5S", 5 * time.Second},
		{"grpc, no header", &StreamDuration{Max: d(time.Minute), GRPCMax: d(0)}, "", time.Minute},
		{"grpc, capped", &StreamDuration{GRPCMax: d(time.Second)}, "5S", time.Second},
		{"grpc, offset", &StreamDuration{GRPCMax: d(0), GRPCOffset: time.Second}, "5S", 4 * time.Second},
		{"grpc, over", &StreamDuration{GRPCMax: d(0), GRPCOffset: 9 * time.Second}, "5S", 1},
	} {
		req := request("POST", "h", "/")
		if c.grpc != "" {
			req.Fields.Add("grpc-timeout", c.grpc)
		}
		f := Forward{StreamDuration: c.s}
		if got := f.MaxDuration(req, time.Hour); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestGRPCTimeout(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6,
		"99999999H": 1 << 62, // nobody who adds it to now has a time that is over
	} {
		if d, ok := GRPCTimeout(request("POST", "h", "/", "grpc-timeout", v)); !ok || d/time.Hour != want/time.Hour || d < 1<<61 && d != want {
			t.Errorf("%s is %v %v, want %v", v, d, ok, want)
		}
	}
	for _, v := range []string{"", "1", "S", "-1S", "1x", "1 S", "123456789S", "1.5S"} {
		if d, ok := GRPCTimeout(request("POST", "h", "/", "grpc-timeout", v)); ok {
			t.Errorf("%q is %v", v, d)
		}
	}
	for d, want := range map[time.Duration]string{
		5 * time.Millisecond: "5m", 99_999_999 * time.Millisecond: "99999999m", 100_000_000 * time.Millisecond: "100000S", 1 << 62: "76861433M",
	} {
		if got := string(message.AppendGRPCTimeout(nil, d)); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
}

func FuzzGRPCTimeout(f *testing.F) {
	f.Add("10S")
	f.Fuzz(func(t *testing.T, v string) {
		if d, ok := GRPCTimeout(request("POST", "h", "/", "grpc-timeout", v)); ok && d < 0 {
			t.Errorf("%q is %v", v, d)
		}
	})
}
