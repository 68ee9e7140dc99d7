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
