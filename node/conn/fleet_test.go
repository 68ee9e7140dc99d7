package conn

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// fleet starts two nodes over one Redis, which know of each other.
func fleet(t *testing.T, change func(*Options)) (n1, n2 *node) {
	t.Helper()
	redis := startRedis(t)
	n1, n2 = startNode(t, redis.Addr(), "n1", change), startNode(t, redis.Addr(), "n2", change)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // until both listen to surveys
		all, err := n1.survey(t.Context(), surveyConnections, Order{})
		if err == nil && len(all.Missing) == 0 {
			return n1, n2
		}
		if time.Now().After(deadline) {
			t.Fatalf("no answer from %v, %v", all.Missing, err)
		}
	}
}

var operatorClaims = token.Claims{User: "op", Roles: []string{channel.RoleOperator}}

func TestOperatorsSeeTheFleet(t *testing.T) {
	n1, n2 := fleet(t, nil)
	ann := n2.connect(t, token.Claims{User: "ann"})
	ann.send(`{"id":2,"subscribe":{"channel":"chat:a"}}`)
	ann.want(`{"id":2,"subscribe":{}}`)
	n2.connect(t, token.Claims{User: "bob"})
	op := n1.connect(t, operatorClaims)
	op.send(`{"id":2,"rpc":{"method":"nodes"}}`)
	if nodes := op.want(`{"id":2,"rpc":{}}`)["rpc"].(map[string]any)["data"].(map[string]any)["nodes"].([]any); len(nodes) != 2 {
		t.Errorf("%d nodes", len(nodes))
	}
	for i, c := range []struct {
		query string
		total int
	}{{`{}`, 3}, {`{"user":"ann"}`, 1}, {`{"channel":"chat:a"}`, 1}, {`{"channel":"chat:b"}`, 0}, {`{"node":"n2"}`, 2}, {`{"user":"ann","node":"n1"}`, 0}} {
		op.send(fmt.Sprintf(`{"id":%d,"rpc":{"method":"connections","data":%s}}`, i+3, c.query))
		op.want(fmt.Sprintf(`{"id":%d,"rpc":{"data":{"total":%d}}}`, i+3, c.total))
	}
	op.send(`{"id":20,"rpc":{"method":"disconnect","data":{"user":"ann"}}}`)
	op.want(`{"id":20,"rpc":{"data":{"total":1}}}`)
	ann.wantClose(3503)
	op.send(`{"id":21,"rpc":{"method":"disconnect","data":{}}}`)
	op.want(`{"id":21,"error":{"code":107}}`)
	op.send(`{"id":22,"rpc":{"method":"drain","data":{"node":"n2"}}}`)
	op.want(`{"id":22,"rpc":{"data":{"total":0}}}`) // no way to drain was given
}

func TestOnlyOperatorsDo(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	r := n.connect(t, token.Claims{User: "ann"})
	for i, method := range []string{"nodes", "connections", "disconnect", "drain"} {
		r.send(fmt.Sprintf(`{"id":%d,"rpc":{"method":%q,"data":{"user":"x","node":"n1"}}}`, i+2, method))
		r.want(fmt.Sprintf(`{"id":%d,"error":{"code":103}}`, i+2))
	}
}

func TestAnOperatorDrainsANode(t *testing.T) {
	ordered := make(chan struct{}, 1)
	n1, _ := fleet(t, func(o *Options) { o.DrainOrdered = func() { ordered <- struct{}{} } })
	op := n1.connect(t, operatorClaims)
	op.send(`{"id":2,"rpc":{"method":"drain","data":{"node":"n2"}}}`)
	op.want(`{"id":2,"rpc":{"data":{"total":1}}}`)
	select {
	case <-ordered:
	case <-time.After(patience):
		t.Error("never ordered")
	}
}

func TestRevocationReachesEveryNode(t *testing.T) {
	n1, n2 := fleet(t, nil)
	for _, c := range []struct {
		name   string
		revoke bus.Revocation
	}{
		{"user", bus.Revocation{User: "u1"}}, {"session", bus.Revocation{Session: "s2"}}, {"token", bus.Revocation{Token: "t3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			claims := token.Claims{User: "u1", Session: "s1", ID: "t1", IssuedAt: time.Now().Add(-time.Second)}
			switch c.name {
			case "session":
				claims.User, claims.Session = "u2", "s2"
			case "token":
				claims.User, claims.Session, claims.ID = "u3", "s3", "t3"
			}
			a, b := n1.connect(t, claims), n2.connect(t, claims)
			other := n1.connect(t, token.Claims{User: "other"})
			if err := n1.bus.Revoke(t.Context(), c.revoke); err != nil {
				t.Fatal(err)
			}
			a.wantClose(3503)
			b.wantClose(3503)
			r := n2.dial(t)
			r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n2.token(t, claims)))
			r.wantClose(3500)
			later := claims
			later.IssuedAt, later.ID = time.Now().Add(2*time.Second), "later"
			n2.connect(t, later) // a token issued after it is good
			other.send(`{"id":2,"rpc":{"method":"time"}}`)
			other.want(`{"id":2,"rpc":{}}`)
		})
	}
}

func TestConnectionsPerUserAndAddress(t *testing.T) {
	n1, n2 := fleet(t, func(o *Options) { o.ConnectionsPerUser, o.ConnectionsPerIP = 3, 6 })
	known := func(n *node, user string, want int) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if got, ok := n.lease.Counts().User(user); ok && got == want {
				return
			}
			if time.Now().After(deadline) {
				got, ok := n.lease.Counts().User(user)
				t.Fatalf("user %s has %d connections (known %v), want %d", user, got, ok, want)
			}
		}
	}
	first := n1.connect(t, token.Claims{User: "ann"})
	n1.connect(t, token.Claims{User: "ann"})
	n2.connect(t, token.Claims{User: "ann"}) // at the limit
	known(n2, "ann", 3)
	past := n2.dial(t)
	past.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n2.token(t, token.Claims{User: "ann"})))
	past.wantClose(4001)
	for deadline := time.Now().Add(patience); n2.count() > 1; time.Sleep(time.Millisecond) { // the refused one doesn't count any more
		if time.Now().After(deadline) {
			t.Fatalf("%d connections", n2.count())
		}
	}
	first.ws.Close()
	known(n2, "ann", 2)
	n2.connect(t, token.Claims{User: "ann"})
	for i := range 3 {
		n2.connect(t, token.Claims{User: fmt.Sprint("other", i)}) // the address is at its limit now
	}
	_, res, err := websocket.DefaultDialer.Dial(n2.url, nil)
	if err == nil || res == nil || res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a seventh connection of the address: %v", err)
	}
}

func TestExcess(t *testing.T) {
	node := func(boot string, connections int, state string) bus.NodeInfo {
		return bus.NodeInfo{Boot: boot, Connections: connections, State: state}
	}
	for _, c := range []struct {
		name   string
		own    int
		others []bus.NodeInfo
		want   int
	}{
		{"alone", 1000, nil, 0},
		{"even", 1000, []bus.NodeInfo{node("b", 1000, stateReady)}, 0},
		{"a new node", 1500, []bus.NodeInfo{node("b", 1500, stateReady), node("c", 0, stateReady)}, 500},
		{"at the factor", 1250, []bus.NodeInfo{node("b", 750, stateReady)}, 0},
		{"past it", 1254, []bus.NodeInfo{node("b", 746, stateReady)}, 254},
		{"a draining node is no place to go", 1000, []bus.NodeInfo{node("b", 0, stateDraining)}, 0},
		{"its own stale report doesn't count", 1000, []bus.NodeInfo{node("a", 0, stateReady)}, 0},
		{"too few to matter", limit.ShedLeast, []bus.NodeInfo{node("b", 0, stateReady)}, 0},
		{"just enough", 2 * limit.ShedLeast, []bus.NodeInfo{node("b", 0, stateReady)}, limit.ShedLeast},
	} {
		if got := excess(c.own, "a", c.others); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
