package logformat

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what an operator's value is, and with it what follows its name.
type Kind int

const (
	// Text takes no argument, and a length.
	Text Kind = iota
	// Number takes neither argument nor length.
	Number
	// Header takes NAME or NAME?ALTERNATIVE, and a length.
	Header
	// Time takes a time format or nothing, and a length.
	Time
)

// Operators are what our sidecar knows. Envoy's names mean what they mean there.
var Operators = map[string]Kind{
	"START_TIME":                                    Time,
	"REQ":                                           Header,
	"RESP":                                          Header,
	"PROTOCOL":                                      Text,
	"RESPONSE_CODE":                                 Number,
	"RESPONSE_FLAGS":                                Text,
	"RESPONSE_CODE_DETAILS":                         Text,
	"CONNECTION_TERMINATION_DETAILS":                Text,
	"BYTES_RECEIVED":                                Number,
	"BYTES_SENT":                                    Number,
	"DURATION":                                      Number,
	"UPSTREAM_HOST":                                 Text,
	"UPSTREAM_REMOTE_ADDRESS":                       Text,
	"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":          Text,
	"UPSTREAM_LOCAL_ADDRESS":                        Text,
	"UPSTREAM_CLUSTER":                              Text,
	"UPSTREAM_CLUSTER_RAW":                          Text,
	"UPSTREAM_TRANSPORT_FAILURE_REASON":             Text,
	"UPSTREAM_REQUEST_ATTEMPT_COUNT":                Number,
	"UPSTREAM_PEER_URI_SAN":                         Text,
	"UPSTREAM_LOCAL_URI_SAN":                        Text,
	"UPSTREAM_TLS_VERSION":                          Text,
	"LOCAL_REPLY_BODY":                              Text,
	"ACCESS_LOG_TYPE":                               Text,
	"ROUTE_NAME":                                    Text,
	"FILTER_CHAIN_NAME":                             Text,
	"REQUESTED_SERVER_NAME":                         Text,
	"DOWNSTREAM_REMOTE_ADDRESS":                     Text,
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":        Text,
	"DOWNSTREAM_REMOTE_PORT":                        Text,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":              Text,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": Text,
	"DOWNSTREAM_LOCAL_ADDRESS":                      Text,
	"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         Text,
	"DOWNSTREAM_LOCAL_PORT":                         Text,
	"DOWNSTREAM_PEER_URI_SAN":                       Text,
	"DOWNSTREAM_LOCAL_URI_SAN":                      Text,
	"DOWNSTREAM_TLS_VERSION":                        Text,
	"DOWNSTREAM_TLS_CIPHER":                         Text,
	"DOWNSTREAM_TRANSPORT_FAILURE_REASON":           Text,
	"CONNECTION_ID":                                 Number,
	"HOSTNAME":                                      Text,
	"HAUBERK_DIRECTION":                             Text,
	"HAUBERK_LISTENER":                              Text,
	"HAUBERK_SERVICE":                               Text,
	"HAUBERK_WORKLOAD":                              Text,
	"HAUBERK_SRC_ID":                                Text,
	"HAUBERK_DST_ID":                                Text,
	"HAUBERK_DECISION":                              Text,
	"HAUBERK_RULE":                                  Text,
	"HAUBERK_SHADOW_RULE":                           Text,
	"HAUBERK_RETRIES":                               Number,
	"HAUBERK_VIRTUAL_HOST":                          Text,
	"HAUBERK_FAILURE":                               Text,
	"HAUBERK_UPSTREAM_DURATION":                     Number,
}

// HeaderNames splits the argument of a Header operator into names in lower
// case; the second is empty when there is no alternative.
func HeaderNames(argument string) (name, alternative string, err error) {
	name, alternative, both := strings.Cut(strings.ToLower(argument), "?")
	if name == "" || both && alternative == "" {
		return "", "", errors.New("a header name is empty")
	}
	return name, alternative, nil
}

func check(name, argument string, hasArgument bool, limit int) error {
	kind, ok := Operators[name]
	if !ok {
		return fmt.Errorf("access log format: operator %%%s%% is unknown; docs/METRICS.md lists the operators", name)
	}
	var err error
	switch {
	case kind == Header && argument == "":
		return fmt.Errorf("access log format: %%%s%% needs an argument in parentheses", name)
	case kind == Header:
		_, _, err = HeaderNames(argument)
	case kind == Time:
		_, err = ParseTime(argument)
	case hasArgument:
		return fmt.Errorf("access log format: %%%s%% takes no argument", name)
	case kind == Number && limit > 0:
		return fmt.Errorf("access log format: %%%s%% is a number and takes no length", name)
	}
	if err != nil {
		return fmt.Errorf("access log format: %%%s(%s)%%: %w", name, argument, err)
	}
	return nil
}
