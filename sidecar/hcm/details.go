package hcm

import (
	"errors"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// codecDetails are Envoy's response code details for the refusals of the codecs that
// it has a name of its own for. All others are http1.codec_error there; ours say which.
var codecDetails = map[string]string{
	http1.ErrUnderscore.Reason:       "http1.unexpected_underscore",
	http1.ErrTooManyFields.Reason:    "http1.too_many_headers",
	http1.ErrHeadTooLarge.Reason:     "http1.headers_too_large",
	http1.ErrTrailersTooLarge.Reason: "http1.trailers_too_large",
	http1.ErrFieldValue.Reason:       "http1.invalid_characters",
	http1.ErrLengthAndCoding.Reason:  "http1.content_length_and_chunked_not_allowed",
	http1.ErrUnknownCoding.Reason:    "http1.invalid_transfer_encoding",
	http1.ErrHost.Reason:             "http.invalid_authority",
	http1.ErrHostMissing.Reason:      "missing_host_header",
	http1.ErrNominated.Reason:        "http1.connection_header_rejected",
	http1.ErrHTTP10.Reason:           "low_version",
	http1.ErrSchemeForbidden.Reason:  "http1.https_url_on_plaintext_connection",
}

// http2Details are those of the codec of HTTP/2.
var http2Details = map[string]string{
	http1.ErrUnderscore.Reason:       "http2.unexpected_underscore",
	http1.ErrTooManyFields.Reason:    "http2.too_many_headers",
	http1.ErrHeadTooLarge.Reason:     "http2.header_list_size_too_large",
	http1.ErrTrailersTooLarge.Reason: "http2.header_list_size_too_large",
}

// streamOverDetails are Envoy's for the end of a cluster's max_stream_duration.
const streamOverDetails = "upstream_max_stream_duration_reached"

// errShed ends a message of HTTP/1 of which nothing more is read because of an overload. To Envoy
// it is a fault of the codec.
var errShed = errors.New("overload")

// refusal tells how a message that its codec refused is answered.
func refusal(err error) (r reply, ok bool) {
	var h1 *http1.Error
	var stream *http2.StreamError
	switch {
	case errors.Is(err, errShed):
		r = reply{status: 500, body: http1.Reason(500), reason: err.Error(), details: err.Error(), close: true}
	case errors.As(err, &h1):
		r = reply{status: h1.Status, reason: h1.Reason, details: detailsOf(codecDetails, h1.Reason), close: true}
		if h1 != http1.ErrHostMissing {
			r.body = http1.Reason(h1.Status)
		}
	case errors.Is(err, http2.ErrOverloaded): // whose fault it is, is nobody's to refuse
		return reply{}, false
	case errors.As(err, &stream) && !stream.Remote:
		r = reply{status: 400, reason: stream.Reason, details: detailsOf(http2Details, stream.Reason), close: true}
	default:
		return reply{}, false
	}
	return r, true
}

// detailsOf is Envoy's name for a codec's reason, or else the reason.
func detailsOf(names map[string]string, reason string) string {
	if d, ok := names[reason]; ok {
		return d
	}
	return reason
}

// transportFailure is Envoy's reason for a connection that could not be made, "" for none.
func transportFailure(err error) string {
	if e, ok := err.(*cluster.Error); ok {
		return e.TransportFailure()
	}
	return ""
}

// connectDetails are Envoy's for a connection that could not be made.
func connectDetails(err error) string {
	details := "upstream_reset_before_response_started{remote_connection_failure"
	if why := transportFailure(err); why != "" {
		details += "|" + strings.ReplaceAll(why, " ", "_")
	}
	return details + "}"
}

// protocolError reads the errors of the codecs; ok is false for others.
func (a *attempt) protocolError(err error) (o outcome, ok bool) {
	var h1 *http1.Error
	var stream *http2.StreamError
	var conn *http2.ConnError
	switch {
	case err == http2.ErrFull:
		return overflow, true
	case errors.Is(err, http2.ErrOverloaded):
		return hoarded, true
	case errors.Is(err, http2.ErrRefused):
		a.wrote = false
		if errors.As(err, &stream) { // it is not the connection that ended
			a.stale, a.declined = false, true
		}
		return refused, true
	case errors.As(err, &h1):
		return a.badResponse(h1.Reason), true
	case errors.As(err, &stream) && stream.Remote && monotonic() >= a.until:
		// The host has heard of the same time (grpc-timeout), and is first to act by it.
		return a.expired(), true
	case errors.As(err, &stream) && stream.Remote && stream.Code == http2.ProtocolError:
		// To Envoy it is no reset by the host: somebody broke the protocol, and it was not the client.
		a.failure = stream.Code.String()
		a.host.Cluster().Metrics().Abandoned(a.x.d.Shard, telemetry.AbandonedStream)
		return resetProtocol, true
	case errors.As(err, &stream) && stream.Remote:
		a.failure, a.resetCode = stream.Code.String(), stream.Code
		return remoteReset, true
	case errors.As(err, &stream):
		return a.badResponse(stream.Reason), true
	case errors.As(err, &conn) && conn.Err == nil && !conn.Remote:
		return a.badResponse(conn.Reason), true
	}
	return 0, false
}

// resetWords say what a host's reset was, as in Envoy.
func resetWords(code http2.Code) string {
	if code == http2.ConnectError {
		return "remote error with CONNECT request"
	}
	return "remote reset"
}

// resetDetails are Envoy's for a host's reset before the response started or after it.
func resetDetails(when string, code http2.Code) string {
	return "upstream_reset_" + when + "_response_started{" + strings.ReplaceAll(resetWords(code), " ", "_") + "}"
}

// passedOn is what the client is told of a host's reset once it has a part of the answer. Of two codes
// gRPC makes CANCELLED and RESOURCE_EXHAUSTED. All others say something of the connection to
// the host, or nothing: the client's is no other for them.
func passedOn(code http2.Code) http2.Code {
	if code == http2.Cancel || code == http2.EnhanceYourCalm {
		return code
	}
	return http2.NoError
}
