package sdk

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"tideline/shared/token"
	"tideline/test/fleet"
	"tideline/test/install"
)

// stranger is a public client in another language. Its program plays one scene and says in lines what it sees.
type stranger struct {
	name     string // as it publishes it
	protobuf bool
	command  func(t *testing.T) (string, []string)
}

func npm(t *testing.T) (string, []string) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node.js is needed: %v; make setup says what to install", err)
	}
	return node, []string{"strangers/scene.mjs"}
}

func pypi(t *testing.T) (string, []string) {
	const wanted = "strangers/requirements.txt"
	dir, err := install.Once("sdk-python", manifest(t, wanted), func(ctx context.Context, dir string) error { return install.Python(ctx, dir, wanted) })
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "bin", "python"), []string{"strangers/scene.py"}
}

func maven(t *testing.T) (string, []string) {
	for _, tool := range []string{"java", "javac", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("a JDK and Maven are needed: %v; make setup says what to install", err)
		}
	}
	dir, err := install.Once("sdk-java", manifest(t, "strangers/pom.xml"), func(ctx context.Context, dir string) error {
		return install.Command(ctx, "mvn", "--batch-mode", "--quiet", "--file", "strangers/pom.xml",
			"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DoutputDirectory="+dir)
	})
	if err != nil {
		t.Fatal(err)
	}
	classes := t.TempDir()
	path := filepath.Join(dir, "*")
	if err := install.Command(t.Context(), "javac", "-cp", path, "-d", classes, "strangers/Scene.java"); err != nil {
		t.Fatal(err)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		t.Fatal(err)
	}
	return java, []string{"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", path + string(os.PathListSeparator) + classes, "Scene"}
}

func manifest(t *testing.T, file string) []byte {
	t.Helper()
	wanted, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return wanted
}

// Each client connects with a token that is about to expire, subscribes, asks for the presence and the history, calls, publishes, refreshes, sends and
// gets bytes where it speaks Protobuf, loses its node to a SIGKILL, and recovers what was published meanwhile. A JSON client in the same channel
// hears the same. The scene itself is strangers/scene.*.
func TestStrangers(t *testing.T) {
	t.Parallel() // most of it is waiting for tokens to expire
	all := []stranger{
		{"npm", true, npm},
		{"pypi", false, pypi},
		{"pypi", true, pypi},
		{"maven", true, maven},
	}
	f, url := startNodes(t, len(all)+3)
	apart := door{url: strings.Replace(f.StartNode().URL, "http", "ws", 1) + "/connection/websocket"} // behind no load balancer, and not killed
	for _, s := range all {
		format := "json"
		if s.protobuf {
			format = "protobuf"
		}
		t.Run(s.name+" "+format, func(t *testing.T) { s.play(t, f, url, format, apart) })
	}
	t.Run("uni", func(t *testing.T) { playUni(t, f, url, apart) })
	t.Run("go protobuf", func(t *testing.T) { playGo(t, f, url, apart) })
}

// play plays the scene, and answers what the program has said.
func (s stranger) play(t *testing.T, f *fleet.Fleet, url, format string, apart door) string {
	user, room := s.name+"-"+format, "open:"+s.name+"-"+format
	mixed := newGo(t, apart, "watcher", func(o *centrifuge.Config) {
		o.Token = sign(t, token.Claims{User: "watcher", Roles: []string{"operator"}}, time.Hour)
	}).up()
	watch := mixed.sub(room, centrifuge.SubscriptionConfig{}).up()
	program, args := s.command(t)
	p := fleet.Run(t, user, program, []string{"URL=" + url, "FORMAT=" + format, "CHANNEL=" + room, "BYTES=bytes:" + user,
		"TOKEN=" + sign(t, token.Claims{User: user}, brief), "FRESH=" + sign(t, token.Claims{User: user}, time.Hour)}, args...)
	p.Await(`^ready`)
	p.Await(`^refreshed`)
	own := fmt.Sprintf(`{"from":%q}`, s.name)
	said := []string{"subscribed false false", "history " + own, "rpc number", "got 1 " + own}
	if s.protobuf {
		said = append(said, "bytes 0,255,10")
	}
	for _, line := range said {
		p.Await("^" + regexp.QuoteMeta(line) + "$")
	}
	if members := strings.Split(p.Await(`^presence (.*)`)[1], ","); !slices.Contains(members, user) || !slices.Contains(members, "watcher") {
		t.Errorf("it saw %v present", members)
	}
	killNodeOf(t, f, mixed, user)
	mixed.say(room, `{"n":2}`, `{"n":3}`)
	p.Await(`^subscribed true true`)
	mixed.say(room, `{"end":4}`)
	p.Await(`^got 4 `)
	for deadline := time.After(2 * time.Minute); p.Running(); {
		select {
		case <-deadline:
			t.Fatalf("it doesn't end:\n%s", p.Tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
	var got []string
	for line := range strings.Lines(p.Output()) {
		if heard, ok := strings.CutPrefix(strings.TrimSpace(line), "got "); ok {
			got = append(got, heard)
		}
	}
	if want := []string{"1 " + own, `2 {"n":2}`, `3 {"n":3}`, `4 {"end":4}`}; !slices.Equal(got, want) {
		t.Errorf("it got %q, want %q", got, want)
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("it said:\n%s", p.Output())
	watch.want(own, `{"n":2}`, `{"n":3}`, `{"end":4}`)
	return p.Output()
}

// playUni is the scene for who has no SDK: the lines on docs/protocol.md.
func playUni(t *testing.T, f *fleet.Fleet, url string, apart door) {
	const room = "open:uni"
	op := newGo(t, apart, "op", func(o *centrifuge.Config) {
		o.Token = sign(t, token.Claims{User: "op", Roles: []string{"operator"}}, time.Hour)
	}).up()
	node, _ := npm(t)
	p := fleet.Run(t, "uni", node, []string{"URL=" + strings.Replace(url, "/websocket", "/uni_websocket", 1), "CHANNEL=" + room,
		"TOKEN=" + sign(t, token.Claims{User: "uni"}, time.Hour)}, "strangers/uni.mjs")
	p.Await(`^refetch open:uni`)
	op.say(room, `{"n":1}`)
	p.Await(`^got `)
	killNodeOf(t, f, op, "uni")
	op.say(room, `{"n":2}`, `{"n":3}`)
	p.Await(`^got .*"n":3`)
	op.say(room, `{"end":4}`)
	p.Await(`^got .*"end":4`)
	const want = `refetch open:uni
got open:uni {"n":1}
got open:uni {"n":2}
got open:uni {"n":3}
got open:uni {"end":4}`
	if got := strings.TrimSpace(p.Output()); got != want {
		t.Errorf("it said:\n%s", got)
	}
}

// killNodeOf kills the node that holds a user's socket.
func killNodeOf(t *testing.T, f *fleet.Fleet, operator *goClient, user string) {
	t.Helper()
	var l struct {
		Connections []struct{ Node string }
	}
	// A node that doesn't answer in time is asked again.
	fleet.Poll(t, "one connection of "+user, func() error {
		if err := operator.call("connections", args{"user": user}, &l); err != nil || len(l.Connections) != 1 {
			return fmt.Errorf("%v, %v", l, err)
		}
		return nil
	})
	f.Node(l.Connections[0].Node).Kill()
}

// playGo is the scene for the Go SDK, in this process.
func playGo(t *testing.T, f *fleet.Fleet, url string, apart door) {
	const room = "open:go"
	at := door{url, true}
	op := newGo(t, apart, "op", func(o *centrifuge.Config) {
		o.Token = sign(t, token.Claims{User: "op", Roles: []string{"operator"}}, time.Hour)
	}).up()
	watch := op.sub(room, centrifuge.SubscriptionConfig{}).up()
	c := newGo(t, at, "go-protobuf", nil).up()
	s := c.sub(room, centrifuge.SubscriptionConfig{}).up()
	other := c.sub("bytes:go", centrifuge.SubscriptionConfig{}).up()
	c.say(room, `1`)
	c.say("bytes:go", "\x00\xff\n")
	other.want("\x00\xff\n")
	watch.want(`1`)
	killNodeOf(t, f, op, "go-protobuf")
	op.say(room, `2`, `3`)
	s.want(`1`, `2`, `3`)
	c.until("recovered", func() bool { return len(s.subscribed) > 1 && s.subscribed[len(s.subscribed)-1].Recovered })
	c.say(room, `4`)
	s.want(`1`, `2`, `3`, `4`)
	watch.want(`1`, `2`, `3`, `4`)

	// A JSON client among the bytes is told that it can't have them, and the others don't notice.
	j := newGo(t, apart, "json", nil).up()
	j.sub("bytes:go", centrifuge.SubscriptionConfig{}).up()
	c.say("bytes:go", "\xfe")
	other.want("\x00\xff\n", "\xfe")
	j.until("disconnected for good", func() bool { return slices.Equal(j.codes, []uint32{3506}) })
}
