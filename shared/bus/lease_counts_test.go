package bus

import (
	"fmt"
	"testing"

	"tideline/test/redistest"
)

// wantCount waits until a node knows that a user has n connections in the fleet.
func wantCount(t testing.TB, n *testNode, user string, want int) {
	t.Helper()
	eventually(t, func() error {
		if got, known := n.Counts().User(user); got != want || !known {
			return fmt.Errorf("%s counts %d connections of %s (known: %v), want %d", n.o.Node, got, user, known, want)
		}
		return nil
	})
}

func testCounts(t *testing.T, o Options) {
	b := openTest(t, o)
	one, two := startNode(t, b, "one"), startNode(t, b, "two")
	for range 3 {
		one.Counts().Add("ann", "10.0.0.1")
	}
	two.Counts().Add("ann", "10.0.0.2")
	two.Counts().Add("", "10.0.0.1") // anonymous
	for _, n := range []*testNode{one, two} {
		wantCount(t, n, "ann", 4)
		wantCount(t, n, "bob", 0)
		wantCount(t, n, "", 0)
		eventually(t, func() error { // the anonymous one may be told of a heartbeat later
			if got, known := n.Counts().IP("10.0.0.1"); got != 4 || !known {
				return fmt.Errorf("%s counts %d connections of 10.0.0.1 (known: %v), want 4", n.o.Node, got, known)
			}
			return nil
		})
	}

	// A node that joins knows what was told before it came, and hears what follows.
	three := startNode(t, b, "three")
	wantCount(t, three, "ann", 4)
	one.Counts().Remove("ann", "10.0.0.1")
	one.Counts().Remove("ann", "10.0.0.1")
	wantCount(t, three, "ann", 2)
	wantCount(t, two, "ann", 2)

	// What Redis lost is told again, and a node that is gone counts no more.
	keys := b.fleetKey(fleetCounts + one.Boot())
	if err := b.client.Del(t.Context(), keys, b.fleetKey(fleetChanges)).Err(); err != nil {
		t.Fatal(err)
	}
	one.Counts().Add("ann", "10.0.0.1")
	wantCount(t, three, "ann", 3)
	four := startNode(t, b, "four")
	wantCount(t, four, "ann", 3)
	one.end()
	wantCount(t, three, "ann", 1)
	wantCount(t, four, "ann", 1)
}

// More users than one change holds, at the edge and past it; most of them gone again later.
func TestCountsOfManyUsers(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	one, two := startNode(t, b, "one"), startNode(t, b, "two")
	const users = 2*pairsPerChange + 1
	for i := range users {
		one.Counts().Add(fmt.Sprint("user", i), "")
	}
	wantTotal := func(n *testNode, want int) {
		t.Helper()
		eventually(t, func() error {
			total := 0
			for i := range users {
				got, _ := n.Counts().User(fmt.Sprint("user", i))
				total += got
			}
			if total != want {
				return fmt.Errorf("%s counts %d, want %d", n.o.Node, total, want)
			}
			return nil
		})
	}
	wantTotal(two, users)
	for i := range pairsPerChange {
		one.Counts().Remove(fmt.Sprint("user", i), "")
	}
	wantTotal(two, users-pairsPerChange)
	wantTotal(startNode(t, b, "three"), users-pairsPerChange)
	eventually(t, func() error {
		if held := b.client.HLen(t.Context(), b.fleetKey(fleetCounts+one.Boot())).Val(); held != users-pairsPerChange+1 {
			return fmt.Errorf("%d fields in Redis, want one per user that is connected and the number", held)
		}
		return nil
	})
}

// A generation that was lost takes its counts along: nobody is counted twice, and nobody is forgotten.
func TestCountsOfALostLease(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	one, two := startNode(t, b, "one"), startNode(t, b, "two")
	one.Counts().Add("ann", "")
	wantCount(t, two, "ann", 1)
	old := one.Boot()
	if err := b.client.Del(t.Context(), b.fleetKey(fleetLease+old)).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if one.Boot() == old {
			return fmt.Errorf("still %s", old)
		}
		return nil
	})
	one.Counts().Add("ann", "")
	wantCount(t, two, "ann", 2)
	wantCount(t, one, "ann", 2)
}

func TestCountsAreUnknownWhenRedisIsAway(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	b := openTest(t, Options{URL: s.URL()})
	n := startNode(t, b, "one")
	n.Counts().Add("ann", "")
	wantCount(t, n, "ann", 1)
	s.Kill()
	eventually(t, func() error {
		if got, known := n.Counts().User("ann"); got != 1 || known {
			return fmt.Errorf("%d, known: %v", got, known)
		}
		return nil
	})
	s.Restart()
	wantCount(t, n, "ann", 1)
}

// A reader that misses changes, in the middle or at the end, notices and reads the full state.
func TestCountsAfterMissedChanges(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	ctx := t.Context()
	teller, reader := newCounts(testTimeout), newCounts(testTimeout)
	g, own := generation{"aaaa", 1}, generation{"bbbb", 1}
	tell := func() {
		t.Helper()
		teller.Add("ann", "")
		if err := teller.tell(ctx, b, g, testTimeout); err != nil {
			t.Fatal(err)
		}
	}
	lose := func() { b.client.XTrimMaxLen(ctx, b.fleetKey(fleetChanges), 0) }
	want := func(heartbeat uint64, want int) {
		t.Helper()
		if err := reader.listen(ctx, b, own, map[string]uint64{g.String(): heartbeat}); err != nil {
			t.Fatal(err)
		}
		if got, known := reader.User("ann"); got != want || !known {
			t.Errorf("%d connections (known: %v), want %d", got, known, want)
		}
	}
	tell()
	want(1, 1) // the full state
	tell()
	want(1, 2) // a change, before the heartbeat that tells of it
	teller.Add("eve", "")
	tell()
	lose()
	tell()
	want(2, 4) // a gap before the change
	if got, _ := reader.User("eve"); got != 1 {
		t.Errorf("%d connections of a user that the missed change told of, want 1", got)
	}
	tell()
	lose()
	want(4, 4) // nothing tells yet that there was one more
	want(5, 5) // the heartbeat does
	if teller.sequence(g) != 5 || teller.sequence(own) != 0 {
		t.Errorf("numbers %d, %d", teller.sequence(g), teller.sequence(own))
	}
	if err := reader.listen(ctx, b, own, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := reader.User("ann"); got != 0 {
		t.Errorf("%d connections of a node that is gone", got)
	}
}
