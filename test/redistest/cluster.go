package redistest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// slots of a Redis cluster.
const slots = 16384

// Cluster is three primaries without replicas that serve all slots between them.
type Cluster struct {
	Shards [3]*Server
	ids    [3]string
	t      T
}

// StartCluster starts three servers in cluster mode and waits until each of them says that the cluster is whole.
func StartCluster(t T, settings ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	settings = append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "15000", "--cluster-config-file", "nodes.conf"}, settings...)
	for i := range c.Shards {
		c.Shards[i] = Start(t, settings...)
	}
	for i, s := range c.Shards {
		c.ids[i] = s.Do("CLUSTER", "MYID").(string)
		first, last := i*slots/len(c.Shards), (i+1)*slots/len(c.Shards)-1
		s.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
	}
	for _, s := range c.Shards[1:] {
		c.Shards[0].Do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(s.Port))
	}
	for _, s := range c.Shards {
		err := poll(startTimeout, func() error {
			info, _ := s.Do("CLUSTER", "INFO").(string)
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") ||
				!strings.Contains(info, "cluster_slots_ok:"+strconv.Itoa(slots)) {
				return errors.New(info)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("redistest: cluster not whole: %v", err)
		}
	}
	return c
}

// URL is what bus.Options.URL takes.
func (c *Cluster) URL() string {
	addrs := make([]string, len(c.Shards))
	for i, s := range c.Shards {
		addrs[i] = s.Addr()
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

// Slot of a key.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	return int(c.Shards[0].Do("CLUSTER", "KEYSLOT", key).(int64))
}

// Owner is the index of the shard that serves a slot.
func (c *Cluster) Owner(slot int) int {
	c.t.Helper()
	ranges, _ := c.Shards[0].Do("CLUSTER", "SLOTS").([]any)
	for _, r := range ranges {
		r := r.([]any)
		if int64(slot) < r[0].(int64) || int64(slot) > r[1].(int64) {
			continue
		}
		for i, id := range c.ids {
			if r[2].([]any)[2] == id {
				return i
			}
		}
	}
	c.t.Fatalf("redistest: slot %d has no owner", slot)
	return -1
}

// Migration moves one slot between shards in steps, as a resharding does.
type Migration struct {
	c        *Cluster
	slot     int
	from, to int
}

// Migrate begins to move a slot to a shard: from here on the old owner answers ASK and TRYAGAIN.
func (c *Cluster) Migrate(slot, to int) *Migration {
	c.t.Helper()
	m := &Migration{c: c, slot: slot, from: c.Owner(slot), to: to}
	c.Shards[to].Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "IMPORTING", c.ids[m.from])
	c.Shards[m.from].Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "MIGRATING", c.ids[to])
	return m
}

// Keys lists up to n keys of the slot that have not moved yet.
func (m *Migration) Keys(n int) []string {
	m.c.t.Helper()
	vs, _ := m.c.Shards[m.from].Do("CLUSTER", "GETKEYSINSLOT", strconv.Itoa(m.slot), strconv.Itoa(n)).([]any)
	keys := make([]string, len(vs))
	for i, v := range vs {
		keys[i] = v.(string)
	}
	return keys
}

// Move moves the given keys.
func (m *Migration) Move(keys ...string) {
	m.c.t.Helper()
	args := append([]string{"MIGRATE", "127.0.0.1", strconv.Itoa(m.c.Shards[m.to].Port), "", "0",
		strconv.Itoa(int(commandTimeout / time.Millisecond)), "KEYS"}, keys...)
	m.c.Shards[m.from].Do(args...)
}

// Finish moves what is left and gives the slot to its new owner, everywhere.
func (m *Migration) Finish() {
	m.c.t.Helper()
	err := poll(startTimeout, func() error {
		if keys := m.Keys(100); len(keys) > 0 {
			m.Move(keys...)
			return fmt.Errorf("slot %d still has keys", m.slot)
		}
		// A script may have made a key again since the last look: then the old owner refuses to give the slot up.
		for _, i := range []int{m.to, m.from} {
			if _, err := m.c.Shards[i].Try("CLUSTER", "SETSLOT", strconv.Itoa(m.slot), "NODE", m.c.ids[m.to]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.c.t.Fatalf("redistest: migrate slot %d: %v", m.slot, err)
	}
	for i, s := range m.c.Shards {
		if i != m.from && i != m.to {
			s.Do("CLUSTER", "SETSLOT", strconv.Itoa(m.slot), "NODE", m.c.ids[m.to])
		}
	}
}
