package listener

import "bytes"

const (
	http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// maxRequestLine bounds what is looked at to recognise HTTP.
	maxRequestLine = 8 << 10
)

// httpProtocol recognises HTTP by the first bytes of a connection: "h2c",
// "http/1.1", "http/1.0", or "" for something else. It returns errMoreBytes while
// they could still become one.
func httpProtocol(b []byte) (string, error) {
	if len(b) == 0 {
		return "", errMoreBytes
	}
	if begins(b, http2Preface) {
		if len(b) < len(http2Preface) {
			return "", errMoreBytes
		}
		return "h2c", nil
	}
	// The method is a token (RFC 9110 5.6.2), of which letters are what is in use.
	space := bytes.IndexByte(b, ' ')
	method := b
	if space >= 0 {
		method = b[:space]
	}
	if len(method) > 32 || space == 0 {
		return "", nil
	}
	for _, c := range method {
		if c != '-' && c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return "", nil
		}
	}
	end := bytes.IndexByte(b[:min(len(b), maxRequestLine)], '\n')
	if end < 0 {
		if len(b) >= maxRequestLine {
			return "", nil
		}
		return "", errMoreBytes
	}
	line := bytes.TrimSuffix(b[:end], []byte("\r"))
	switch version := line[bytes.LastIndexByte(line, ' ')+1:]; string(version) {
	case "HTTP/1.1":
		return "http/1.1", nil
	case "HTTP/1.0":
		return "http/1.0", nil
	}
	return "", nil
}
