package render

import (
	"fmt"
	"strings"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// envoyOperators are the operators that every Envoy of TracingEnvoy or newer knows
// without an extension. Envoy refuses a listener that names another.
var envoyOperators = func() map[string]bool {
	out := map[string]bool{}
	for name := range strings.FieldsSeq("REQ RESP TRAILER START_TIME PROTOCOL RESPONSE_CODE RESPONSE_CODE_DETAILS RESPONSE_FLAGS " +
		"RESPONSE_FLAGS_LONG CONNECTION_TERMINATION_DETAILS BYTES_RECEIVED BYTES_SENT DURATION REQUEST_DURATION " +
		"RESPONSE_DURATION RESPONSE_TX_DURATION UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_HOST UPSTREAM_CLUSTER " +
		"UPSTREAM_LOCAL_ADDRESS UPSTREAM_REMOTE_ADDRESS UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_TLS_VERSION " +
		"UPSTREAM_TLS_CIPHER UPSTREAM_PEER_URI_SAN UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_ISSUER UPSTREAM_LOCAL_URI_SAN " +
		"ROUTE_NAME FILTER_CHAIN_NAME REQUESTED_SERVER_NAME CONNECTION_ID STREAM_ID HOSTNAME GRPC_STATUS GRPC_STATUS_NUMBER " +
		"DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT " +
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_ADDRESS " +
		"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_URI_SAN " +
		"DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_FINGERPRINT_256 " +
		"DOWNSTREAM_TLS_VERSION DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TRANSPORT_FAILURE_REASON") {
		out[name] = true
	}
	return out
}()

// operatorsOf are the names of the operators in a text, those within COALESCE too.
func operatorsOf(text string) ([]string, error) {
	pieces, err := logformat.Parse(text)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range pieces {
		if p.Name == "" {
			continue
		}
		out = append(out, p.Name)
		if logformat.Operators[p.Name].Kind != logformat.First {
			continue
		}
		within, err := logformat.Alternatives(p.Argument)
		if err != nil {
			return nil, err
		}
		for _, a := range within {
			out = append(out, a.Name)
		}
	}
	return out, nil
}

// withoutUnknown removes the tags that Envoy would refuse. The texts were checked.
func withoutUnknown(tags map[string]string, where string) []Problem {
	var out []Problem
	for _, k := range sortedKeys(tags) {
		operators, _ := operatorsOf(tags[k])
		for _, o := range operators {
			if !envoyOperators[o] {
				delete(tags, k)
				out = append(out, Problem{Path: where + k, Reason: fmt.Sprintf("%%%s%% is not known to every Envoy that is supported; spans go without this tag", o)})
				break
			}
		}
	}
	return out
}
