// Package ads is the aggregated discovery service: the server side of xDS, state
// of the world and incremental, over one session core.
//
// A session is one stream. Its core (core.go and its neighbours) is a state
// machine without goroutines or clocks: requests and new resource sets go in,
// responses come out of next. The session around it (session.go) owns the
// goroutines: one receives, one sends, one decides. Deciding never waits for
// sending: while a slow client's response is on its way, changes coalesce into
// the one newest set, so a slow client costs nothing.
//
// What the core promises:
//
//   - Versions are content hashes, so a client that moves between control planes
//     is sent only what differs.
//   - Every subscribed name is answered: with the resource, with its removal, or
//     (endpoints) with an empty assignment; and again whenever it is asked for
//     again.
//   - Make before break: upserts travel CDS, EDS, LDS, RDS; a listener or route is
//     held while a cluster it names is new to the client and not yet acknowledged
//     with its endpoints, for at most Config.HoldTimeout; removals follow once
//     upserts are acknowledged, and never while the client still holds a resource
//     that names the removed one.
//   - A listener marked Urgent (it carries authorization) that the client already
//     holds is sent at once, whatever else is held, outstanding or rejected.
//   - A rejected batch is retried in parts until the bad resources stand alone.
//     Those are quarantined until their content changes; the client keeps their
//     last good version.
package ads
