package hcm

import (
	"crypto/rand"
	"crypto/sha1" // what RFC 6455 asks for; it protects nothing
	"encoding/base64"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// WebSocket's handshake proves in HTTP/1 that the server speaks it (RFC 6455 4.2.2);
// in HTTP/2 it does not exist (RFC 8441 5), so it is made at the border of the two.

const (
	websocketKey    = "sec-websocket-key"
	websocketAccept = "sec-websocket-accept"
)

func isWebSocket(r *message.Request) bool { return message.EqualFold(r.Upgrade, "websocket") }

// acceptOf is the answer to a key.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// offerWebSocket adds the key that a client of HTTP/2 did not send, and returns it; it
// is empty when the client's own is there. Whether one of HTTP/1 may go without is the host's
// to say.
func offerWebSocket(r *message.Request) string {
	if _, ok := r.Fields.Get(websocketKey); ok || r.Version != message.HTTP2 || !isWebSocket(r) {
		return ""
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	r.Fields.Add("Sec-WebSocket-Key", key)
	return key
}

// checkWebSocket verifies the answer to our own key and takes both away.
func checkWebSocket(key string, req *message.Request, resp *message.Response) error {
	if key == "" {
		return nil
	}
	accept, _ := resp.Fields.Get(websocketAccept)
	if accept != acceptOf(key) {
		return &http1.Error{Status: 502, Reason: "bad_websocket_accept"}
	}
	req.Fields.Del(websocketKey)
	resp.Fields.Del(websocketAccept)
	return nil
}

// answerWebSocket adds the answer that a server of HTTP/2 did not give.
func answerWebSocket(req *message.Request, resp *message.Response) {
	key, ok := req.Fields.Get(websocketKey)
	if _, answered := resp.Fields.Get(websocketAccept); !ok || answered || !isWebSocket(req) {
		return
	}
	resp.Fields.Add("Sec-WebSocket-Accept", acceptOf(key))
}
