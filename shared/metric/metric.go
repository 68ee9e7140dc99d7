// Package metric names every metric that Tideline's code emits and its dashboards draw: one constant each, no name spelled out elsewhere.
package metric

// Prometheus metrics of a node, on its private port. Every one carries the constant label "instance" (NODE_ID).
const (
	HTTPRequests     = "http_requests_total"               // counter: method, route, status
	Uptime           = "app_uptime_seconds"                // gauge
	ConnectionsTotal = "websocket_connections_total"       // counter
	Connections      = "websocket_connections_active"      // gauge
	ConnectionsAlias = "websocket_active_connections"      // gauge, same value: dashboards know both
	MessagesSent     = "websocket_messages_sent_total"     // counter: namespace
	MessageLatency   = "websocket_message_latency_seconds" // histogram: publish to socket write; namespace
	RoundTrip        = "websocket_round_trip_seconds"      // histogram: the protocol's ping to pong
	Disconnects      = "websocket_disconnects_total"       // counter: code
	CommandErrors    = "websocket_command_errors_total"    // counter: method, code
	PassedOn         = "emulation_passed_on_total"         // counter: result (taken, unknown, unavailable): commands of HTTP streams for other nodes
	SlowConsumers    = "websocket_slow_consumers_total"    // counter
	QueueBytes       = "websocket_queue_bytes"             // gauge: queued for all connections
	Subscriptions    = "websocket_subscriptions_active"    // gauge
	Channels         = "bus_channels_active"               // gauge: channels followed
	Publications     = "bus_publications_total"            // counter: result (published, duplicate, superseded, error)
	Dropped          = "bus_publications_dropped_total"    // counter: reason (inbox_full, hub_full, unreadable); each is read from the stream or announced
	GapsRepaired     = "bus_gaps_repaired_total"           // counter
	GapsAnnounced    = "bus_gaps_announced_total"          // counter
	Recoveries       = "bus_recoveries_total"              // counter: result (ring, redis, failed)
	Resubscribes     = "bus_resubscribes_total"            // counter: subscriber connections rebuilt
	Rotations        = "bus_rotations_total"               // counter: subscriber connections replaced for their age
	ProbesLost       = "bus_probes_lost_total"             // counter: liveness probes that did not come back in time
	Retries          = "bus_retries_total"                 // counter: commands to Redis that were tried again
	HistoryReads     = "bus_history_reads_total"           // counter: reads of history from Redis
	PositionReads    = "bus_position_reads_total"          // counter
	ProbeAge         = "bus_probe_age_seconds"             // gauge: age of the last probe that came back
	RedisUp          = "bus_redis_up"                      // gauge
	CanaryHeard      = "canary_heard_total"                // counter: canaries that came over the node's own socket
	CanaryMissed     = "canary_missed_total"               // counter: canaries that did not come in time
	CanaryLatency    = "canary_latency_seconds"            // histogram: publish to the node's own socket
	StreamsRunning   = "streams_running"                   // gauge: streams that this node reads
	StreamLines      = "stream_lines_total"                // counter: namespace
	StreamDropped    = "stream_lines_dropped_total"        // counter: namespace; faster than the publisher's rate
	StreamStarts     = "stream_starts_total"               // counter: namespace, from (beginning, cursor)
	StreamStops      = "stream_stops_total"                // counter: namespace, reason (unwatched, shutdown, lost, publish, source)
)

// Metrics of the functions: EMF in Lambda, Prometheus elsewhere.
const (
	TasksCreated    = "tasks_created_total"
	TasksCompleted  = "tasks_completed_total"
	TasksFailed     = "tasks_failed_total"
	PublishFailures = "publish_failures_total"
	Duplicates      = "duplicates_suppressed_total"
	RequestLatency  = "request_latency_seconds"
	RequestErrors   = "request_errors_total"
)

// DimensionFunction is the function's name: the only dimension of its metrics that are measured without labels.
const DimensionFunction = "function"
