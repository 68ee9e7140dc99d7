package hub

import "maps"

// Channels counts the subscriptions of every channel that has any.
func (h *Hub) Channels() map[string]int {
	h.mu.RLock()
	routes := maps.Clone(h.channels)
	h.mu.RUnlock()
	counts := make(map[string]int, len(routes))
	for name, r := range routes {
		r.mu.Lock()
		if r.subs > 0 { // the last one may have left meanwhile
			counts[name] = r.subs
		}
		r.mu.Unlock()
	}
	return counts
}
