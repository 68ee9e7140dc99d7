package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"tideline/shared/token"
)

// Handler serves the function's events: EventBridge's schedule, or by hand {"replace": {"ring": "access", "kid": "…"}}.
type Handler struct {
	Rotation *Rotation
	Fetcher  *Fetcher
}

type order struct {
	Replace *struct {
		Ring string `json:"ring"`
		KID  string `json:"kid"`
	} `json:"replace"`
}

// Event does one run. An issuer that can't be reached fails the run only after everything else was done, so that alarms see it.
func (h *Handler) Event(ctx context.Context, payload json.RawMessage) (any, error) {
	var o order
	if err := json.Unmarshal(payload, &o); err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	if o.Replace != nil {
		if o.Replace.Ring != token.RingAccess && o.Replace.Ring != token.RingSession {
			return nil, fmt.Errorf("replace: ring %q is neither %s nor %s", o.Replace.Ring, token.RingAccess, token.RingSession)
		}
		return map[string]string{"replaced": o.Replace.KID}, h.Rotation.Replace(ctx, o.Replace.Ring, o.Replace.KID)
	}
	return map[string]string{}, errors.Join(h.Rotation.Rotate(ctx), h.Fetcher.Fetch(ctx))
}
