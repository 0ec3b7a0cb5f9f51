// Package http1 is HTTP/1.1 (RFC 9112) as state machines over bytes: it reads and
// writes messages and touches no connection. It rejects what is malformed or
// ambiguous and repairs nothing, because two parties that disagree on where a
// message ends can be played against each other.
package http1

// Error is a message that was refused. Status is the answer it deserves on the
// downstream side; towards an upstream every error is a 502. Reason is a stable
// word for counters and access logs.
type Error struct {
	Status int
	Reason string
}

func (e *Error) Error() string { return "http1: " + e.Reason }

func bad(reason string) *Error { return &Error{400, reason} }

// The refusals.
var (
	ErrLineEnd         = bad("bad_line_end")     // bare CR or LF, RFC 9112 2.2
	ErrRequestLine     = bad("bad_request_line") // RFC 9112 3
	ErrMethod          = bad("bad_method")       // RFC 9110 9.1: a token
	ErrMethodUnknown   = bad("unknown_method")   // one of Envoy's rules
	ErrTarget          = bad("bad_target")       // RFC 9112 3.2
	ErrVersion         = bad("bad_version")      // RFC 9112 2.3
	ErrStatusLine      = bad("bad_status_line")  // RFC 9112 4
	ErrFieldName       = bad("bad_field_name")   // RFC 9110 5.1, RFC 9112 5.1
	ErrFieldValue      = bad("bad_field_value")  // RFC 9110 5.5
	ErrFold            = bad("folded_field")     // RFC 9112 5.2
	ErrUnderscore      = bad("underscore_in_field_name")
	ErrHostMissing     = bad("no_host")                              // RFC 9112 3.2
	ErrHostRepeated    = bad("repeated_host")                        // RFC 9112 3.2
	ErrHost            = bad("bad_host")                             // RFC 9110 7.2
	ErrHostMismatch    = bad("host_mismatch")                        // RFC 9112 3.2.2
	ErrLength          = bad("bad_content_length")                   // RFC 9110 8.6
	ErrLengthRepeated  = bad("repeated_content_length")              // RFC 9112 6.3
	ErrLengthAndCoding = bad("content_length_and_transfer_encoding") // RFC 9112 6.1
	ErrCoding          = bad("bad_transfer_encoding")                // RFC 9112 6.1, 7
	ErrCodingHTTP10    = bad("transfer_encoding_in_http_1_0")        // RFC 9112 6.1
	ErrBodyForbidden   = bad("body_not_allowed")                     // RFC 9112 6.3
	ErrConnection      = bad("bad_connection")                       // RFC 9110 7.6.1
	ErrNominated       = bad("bad_nomination")                       // one of Envoy's rules
	ErrChunkSize       = bad("bad_chunk_size")                       // RFC 9112 7.1
	ErrChunkExtension  = bad("bad_chunk_extension")                  // RFC 9112 7.1.1
	ErrChunkEnd        = bad("bad_chunk_end")                        // RFC 9112 7.1
	ErrTrailer         = bad("forbidden_trailer")                    // RFC 9110 6.5.1
	ErrTruncated       = bad("truncated_body")                       // RFC 9112 8
	ErrUpgradeConnect  = bad("upgrade_with_connect")                 // RFC 9110 7.8, 9.3.6
	ErrUpgrade         = bad("bad_upgrade")                          // RFC 9110 7.8
	ErrUpgradeBody     = bad("upgrade_with_body")                    // RFC 9110 7.8

	ErrSchemeForbidden   = &Error{403, "https_on_plaintext"} // one of Envoy's rules
	ErrURITooLong        = &Error{414, "uri_too_long"}
	ErrExpect            = &Error{417, "bad_expect"} // RFC 9110 10.1.1
	ErrHTTP10            = &Error{426, "http_1_0_not_accepted"}
	ErrHeadTooLarge      = &Error{431, "headers_too_large"}
	ErrTooManyFields     = &Error{431, "too_many_headers"}
	ErrTrailersTooLarge  = &Error{431, "trailers_too_large"}
	ErrExtensionsTooLong = &Error{400, "chunk_extensions_too_long"}
	ErrUnknownCoding     = &Error{501, "unknown_transfer_coding"}
	ErrUnknownVersion    = &Error{505, "unsupported_version"}
)
