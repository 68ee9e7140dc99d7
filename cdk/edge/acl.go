package edge

import "tideline/shared/bus"

// AccessString is what one role's Redis user may do: nodes all that the bus does in this stage, functions publish.
func AccessString(stage, role string) string {
	if role == roleFunction {
		return "on " + bus.PublisherAccessString(stage)
	}
	return "on " + bus.AccessString(stage)
}
