package edge

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
	"tideline/test/redistest"
)

// signIn makes the role's user on a server as ElastiCache would, with a password in the place of IAM.
func signIn(role string, servers ...*redistest.Server) {
	for _, s := range servers {
		s.Do(append([]string{"ACL", "SETUSER", role, ">pw"}, strings.Fields(AccessString("test", role))...)...)
	}
}

func open(t *testing.T, url, stage string, now ...func() time.Time) *bus.Bus {
	t.Helper()
	o := bus.Options{URL: url, Stage: stage}
	if len(now) > 0 {
		o.Now = now[0]
	}
	b, err := bus.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// publications in every form that takes another way through the script.
var publications = map[string]bus.Publication{
	"plain":        {Channel: "chat:a", Data: []byte(`{}`)},
	"with an id":   {Channel: "chat:b", Data: []byte(`{}`), ID: "one"},
	"with history": {Channel: "chat:c", Data: []byte(`{}`), History: bus.History{Size: 2, TTL: time.Minute}},
	"of a version": {Channel: "todos:#u", Data: []byte(`{}`), ID: "t:1", Key: "t", Version: 1, History: bus.History{Size: 2, TTL: time.Minute}},
}

// publishAll takes every way through the script: publications of long ago that are forgotten now, each one anew and repeated, a lock
// that guards, and a stream that has lost its meta. admin prepares what a function may not.
func publishAll(t *testing.T, url string, admin func(key string, args ...string)) {
	t.Helper()
	ago := func() time.Time { return time.Now().Add(-limit.IdempotencyTTL - time.Hour) }
	for _, b := range []*bus.Bus{open(t, url, "test", ago), open(t, url, "test")} {
		for name, p := range publications {
			for range 2 {
				if _, err := b.Publish(t.Context(), p); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	b := open(t, url, "test")
	hash := fnv.New32a()
	_, _ = hash.Write([]byte("logs:i"))
	lock := fmt.Sprintf("tl:test:{%d}:l:logs:i}source", hash.Sum32()%limit.Partitions)
	admin(lock, "SET", lock, "token")
	fenced := publications["plain"]
	fenced.Channel, fenced.Fence = "logs:i", &bus.Fence{Lock: "source", Token: "token", Cursor: "7"}
	if _, err := b.Publish(t.Context(), fenced); err != nil {
		t.Errorf("under a lock: %v", err)
	}
	if err := b.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func TestAFunctionMayPublishInEveryForm(t *testing.T) {
	used := map[string]bool{}
	verify := func(servers ...*redistest.Server) {
		for _, s := range servers {
			for _, denied := range s.Do("ACL", "LOG").([]any) {
				t.Errorf("denied: %v", denied)
			}
			stats, _ := s.Do("INFO", "commandstats").(string)
			for line := range strings.Lines(stats) {
				if name, _, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":"); ok {
					used[name] = true
				}
			}
		}
	}
	server := redistest.Start(t)
	signIn(roleFunction, server)
	server.Do("CONFIG", "RESETSTAT")
	// A stream whose meta is gone is removed by the next publication.
	server.Do("XADD", "tl:test:{56}:s:chat:c", "1-0", "d", "lost")
	publishAll(t, "redis://fn:pw@"+server.Addr(), func(_ string, args ...string) { server.Do(args...) })
	verify(server)

	cluster := redistest.StartCluster(t)
	for _, s := range cluster.Shards {
		s.Do("CONFIG", "RESETSTAT")
	}
	signIn(roleFunction, cluster.Shards[:]...)
	publishAll(t, strings.Replace(cluster.URL(), "://", "://fn:pw@", 1), func(key string, args ...string) {
		cluster.Shards[cluster.Owner(cluster.Slot(key))].Do(args...)
	})
	verify(cluster.Shards[:]...)

	_, commands, _ := strings.Cut(AccessString("test", roleFunction), "-@all ")
	for command := range strings.FieldsSeq(commands) {
		if name := strings.TrimPrefix(command, "+"); !used[name] {
			t.Errorf("%s is allowed and never used", name)
		}
	}
}

func TestAFunctionMayDoNothingElse(t *testing.T) {
	server := redistest.Start(t)
	signIn(roleFunction, server)
	url := "redis://fn:pw@" + server.Addr()
	b := open(t, url, "test")
	if _, err := b.Publish(t.Context(), publications["with history"]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for name, try := range map[string]func() error{
		"read history":  func() error { _, _, err := b.History(ctx, "chat:c", bus.Page{Limit: 1}); return err },
		"read presence": func() error { _, err := b.Presence(ctx, "chat:a"); return err },
		"list nodes":    func() error { _, err := b.Nodes(ctx); return err },
		"publish in another stage": func() error {
			_, err := open(t, url, "other").Publish(ctx, publications["plain"])
			return err
		},
	} {
		err := try() // a script that is stopped inside says it in its own words
		if err == nil || !strings.Contains(err.Error(), "NOPERM") && !strings.Contains(err.Error(), "can't run this command") {
			t.Errorf("%s: %v, want a denial", name, err)
		}
	}
	for _, command := range [][]string{{"SUBSCRIBE", "tl:test:{1}:c:chat:a"}, {"PSUBSCRIBE", "tl:test:*"}, {"KEYS", "*"}, {"FLUSHALL"}, {"CONFIG", "GET", "*"},
		{"GET", "tl:test:{nodes}:n:1"}, {"SET", "tl:test:{1}:l:x", "1"}, {"XRANGE", "tl:test:{1}:s:chat:a", "-", "+"}, {"PUBLISH", "tl:test:{1}:y:x", "1"}, {"ACL", "LIST"}} {
		args := append([]string{"ACL", "DRYRUN", roleFunction}, command...)
		if answer, _ := server.Do(args...).(string); answer == "OK" {
			t.Errorf("a function may %v", command)
		}
	}
}

func TestANodeMayDoWhatTheBusDoesInItsStageOnly(t *testing.T) {
	server := redistest.Start(t)
	signIn(roleNode, server)
	for command, want := range map[string]bool{
		"SUBSCRIBE tl:dev:{1}:c:chat:a": false, "SUBSCRIBE tl:test:{1}:c:chat:a": true, "PUBLISH tl:test:{1}:c:chat:a x": true,
		"XRANGE tl:test:{1}:s:chat:a - +": true, "XRANGE tl:dev:{1}:s:chat:a - +": false, "PSUBSCRIBE tl:test:*": false, "KEYS *": false, "FLUSHALL": false,
		"CONFIG SET save x": false, "SCRIPT FLUSH": false, "CLIENT KILL TYPE normal": false, "ACL SETUSER x": false, "DEBUG SLEEP 1": false,
	} {
		answer, _ := server.Do(append([]string{"ACL", "DRYRUN", roleNode}, strings.Fields(command)...)...).(string)
		if got := answer == "OK"; got != want {
			t.Errorf("%s: allowed %v, want %v (%s)", command, got, want, answer)
		}
	}
}

func TestAccessStringsSayNothingTwice(t *testing.T) {
	for _, role := range []string{roleNode, roleFunction} {
		words := strings.Fields(AccessString("test", role))
		sorted := slices.Sorted(slices.Values(words))
		if len(slices.Compact(sorted)) != len(words) {
			t.Errorf("%s: %v", role, words)
		}
	}
}
