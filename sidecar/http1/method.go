package http1

// registered are the methods that Envoy takes without allow_custom_methods. It writes MSEARCH,
// the protocol's own spelling is M-SEARCH (UPnP Device Architecture 1.3.2).
var registered = map[string]bool{
	"ACL": true, "BIND": true, "CHECKOUT": true, "CONNECT": true, "COPY": true, "DELETE": true, "GET": true, "HEAD": true,
	"LINK": true, "LOCK": true, "MERGE": true, "MKACTIVITY": true, "MKCALENDAR": true, "MKCOL": true, "MOVE": true,
	"M-SEARCH": true, "MSEARCH": true, "NOTIFY": true, "OPTIONS": true, "PATCH": true, "POST": true, "PROPFIND": true, "PROPPATCH": true,
	"PURGE": true, "PUT": true, "QUERY": true, "REBIND": true, "REPORT": true, "SEARCH": true, "SOURCE": true, "SUBSCRIBE": true,
	"TRACE": true, "UNBIND": true, "UNLINK": true, "UNLOCK": true, "UNSUBSCRIBE": true,
}
