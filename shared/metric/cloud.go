package metric

// Namespace is the CloudWatch namespace of a stage's metrics; nodes may write to no other.
func Namespace(stage string) string { return "Tideline/" + stage }

// Metrics that a node sends to CloudWatch, and their dimension. Few and of low cardinality: each costs money by the month.
const (
	// CloudConnections is the number of sockets, sent by nodes that are not draining, zeros included. The group scales on its mean,
	// with DimensionGroup as its only dimension.
	CloudConnections = "Connections"
	// DimensionGroup is the Auto Scaling group's name.
	DimensionGroup = "AutoScalingGroupName"
)

// The key figures, without dimensions: the namespace is the stage. Sums are over the time since the figures sent before, zeros included.
const (
	CloudLatency          = "PublishToDeliver" // seconds: distribution, so that percentiles are the fleet's
	CloudDeliveries       = "Deliveries"       // count: publications queued to sockets
	CloudPublications     = "Publications"     // count: published by clients of nodes
	CloudErrors           = "Errors"           // count: commands answered with the temporary error 100
	CloudDrops            = "Drops"            // count: messages from Redis dropped before they were handled
	CloudGaps             = "GapsAnnounced"    // count: gaps that subscribers were told of
	CloudFailedRecoveries = "FailedRecoveries" // count: clients that came back and were told to fetch again
	CloudSlowConsumers    = "SlowConsumers"    // count: connections closed because their queue was full
	CloudResubscribes     = "Resubscribes"     // count: subscriber connections to Redis lost and rebuilt
	CloudQueueBytes       = "QueueBytes"       // bytes that wait for all connections of a node
	CloudCanaryMissed     = "CanaryMissed"     // count: canaries that a node did not hear in time over its own socket; see limit.CanaryInterval
)

// CloudDeploying is 1 while CloudFormation updates the stage's stack; make deploy sends it, and the pager is quiet meanwhile. No dimensions.
const CloudDeploying = "Deploying"
