package conn

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tideline/node/hub"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// protocolPage is docs/protocol.md: its text, and its code blocks by kind.
func protocolPage(t *testing.T) (page string, blocks map[string][]string) {
	t.Helper()
	raw, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	page, blocks = string(raw), map[string][]string{}
	kind, body := "", ""
	lines := bufio.NewScanner(strings.NewReader(page))
	for lines.Scan() {
		after, fence := strings.CutPrefix(lines.Text(), "```")
		switch {
		case fence && kind == "":
			kind, body = after, ""
		case fence:
			blocks[kind] = append(blocks[kind], body)
			kind = ""
		case kind != "":
			body += lines.Text() + "\n"
		}
	}
	return page, blocks
}

func TestProtocolPageExchanges(t *testing.T) {
	_, blocks := protocolPage(t)
	if len(blocks["exchange"]) < 5 || len(blocks["json channels"]) != 1 {
		t.Fatalf("%d exchanges, %d files of channels", len(blocks["exchange"]), len(blocks["json channels"]))
	}
	table, err := channel.Parse([]byte(blocks["json channels"][0]))
	if err != nil {
		t.Fatal(err)
	}
	eachFormat(t, func(t *testing.T, f hub.Format) {
		n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table }).speaking(f)
		playExchanges(t, n, blocks["exchange"])
	})
	t.Run("uni", func(t *testing.T) {
		n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table })
		for _, block := range blocks["uni"] {
			playUni(t, n, block)
		}
		if len(blocks["uni"]) == 0 {
			t.Error("no exchange of unidirectional clients")
		}
	})
}

// playUni plays an exchange in which a line with ! is a server's publication.
func playUni(t *testing.T, n *node, block string) {
	r := n.listener(t, "")
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case ">":
			r.send(strings.ReplaceAll(rest, `"TOKEN"`, strconv.Quote(n.token(t, token.Claims{User: "ann"}))))
		case "!":
			name, data, _ := strings.Cut(rest, " ")
			n.publish(t, name, data)
		default:
			var want any
			if err := json.Unmarshal([]byte(rest), &want); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if got := r.want(`{}`); !like(got, want) {
				t.Errorf("came %v, the page has %s", got, line)
			}
		}
	}
}

func playExchanges(t *testing.T, n *node, blocks []string) {
	ann := token.Claims{User: "ann"}
	room := token.Claims{User: "ann", Channel: "room:kitchen"}
	for i, block := range blocks {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			var r *raw
			if strings.Contains(block, `"connect"`) {
				r = n.dial(t)
			} else {
				r = n.connect(t, ann)
			}
			fill := strings.NewReplacer(`"TOKEN"`, strconv.Quote(n.token(t, ann)), `"ROOM"`, strconv.Quote(n.token(t, room)))
			var replies []any // that have come and are not on the page yet
			epoch := ""
			for line := range strings.Lines(block) {
				line = strings.TrimSpace(line)
				if sent, ok := strings.CutPrefix(line, "> "); ok {
					r.send(strings.ReplaceAll(fill.Replace(sent), "EPOCH", epoch))
					continue
				}
				var want any
				if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "< ")), &want); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				for match := false; !match; { // a push and a reply come in either order
					at := slices.IndexFunc(replies, func(got any) bool { return like(got, want) })
					if match = at >= 0; match {
						replies = slices.Delete(replies, at, at+1)
						break
					}
					if len(replies) > 3 {
						t.Fatalf("no %s; came %v", line, replies)
					}
					got := r.want(`{}`)
					if s, ok := got["subscribe"].(map[string]any); ok {
						epoch, _ = s["epoch"].(string)
					}
					replies = append(replies, got)
				}
			}
			for _, left := range replies {
				if _, push := left.(map[string]any)["push"].(map[string]any)["join"]; !push {
					t.Errorf("not on the page: %v", left)
				}
			}
		})
	}
}

// like is contains, where … is anything that is there.
func like(got, want any) bool {
	if want == "…" {
		return got != nil
	}
	w, ok := want.(map[string]any)
	if !ok {
		return contains(got, want)
	}
	g, ok := got.(map[string]any)
	for k := range w {
		ok = ok && like(g[k], w[k])
	}
	return ok
}

var (
	errorRow = regexp.MustCompile(`(?m)^\| (1\d\d) \| ([^|]+?) \|(.*)$`)
	byeRow   = regexp.MustCompile(`(?m)^\| ([134]\d\d\d) \| ([^|]+?) \|`)
	unsubRow = regexp.MustCompile(`(?m)^\| (2\d\d\d) \|`)
	limitRow = regexp.MustCompile("(?m)^\\| [^|]+ \\| (?:namespace: )?(?:`(\\w+)` )?\\| (\\S+) \\|")
)

func TestProtocolPageCodes(t *testing.T) {
	page, _ := protocolPage(t)
	var got, want []string
	for _, m := range errorRow.FindAllStringSubmatch(page, -1) {
		got = append(got, fmt.Sprint(m[1], " ", m[2], " ", strings.Contains(m[3], "temporary")))
	}
	for _, e := range []refusal{errInternal, errUnauthorized, errUnknownChannel, errPermission, errMethodNotFound, errAlreadySub, errLimitExceeded,
		errBadRequest, errNotAvailable, errTokenExpired, errTooManyRequests, errUnrecoverable} {
		want = append(want, fmt.Sprint(e.code, " ", e.message, " ", e.temporary))
	}
	if !slices.Equal(got, want) {
		t.Errorf("errors on the page %q, in the code %q", got, want)
	}
	got, want = nil, nil
	for _, m := range byeRow.FindAllStringSubmatch(page, -1) {
		got = append(got, m[1]+" "+m[2])
	}
	for _, d := range []disconnect{byeProtocolError, byeNotUTF8, byeTooLarge, byeShutdown, byeServerError, byeExpired, byeSubExpired, byeSlow, byeInsufficientState,
		byeForceReconnect, byeNoPong, byeTooManyRequests, byeInvalidToken, byeBadRequest, byeStale, byeForceNoReconnect, byeChannelLimit, byeInappropriate, byePermission, byeNotAvailable, byeUserLimit} {
		want = append(want, d.Error())
	}
	if !slices.Equal(got, want) {
		t.Errorf("goodbyes on the page %q, in the code %q", got, want)
	}
	got, want = nil, []string{fmt.Sprint(unsubServer), fmt.Sprint(unsubInsufficient), fmt.Sprint(unsubExpired)}
	for _, m := range unsubRow.FindAllStringSubmatch(page, -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("unsubscribe codes on the page %q, in the code %q", got, want)
	}
	// Nothing is said anywhere in the code that isn't in these lists.
	code, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(regexp.MustCompile(`(?m)^\t(err|bye|unsub)\w+\s+= `).FindAll(code, -1)); n != 12+21+3 {
		t.Errorf("codes.go has %d codes, this test knows %d", n, 12+21+3)
	}
}

func TestProtocolPageLimits(t *testing.T) {
	page, _ := protocolPage(t)
	_, section, _ := strings.Cut(page, "\n## Limits\n")
	section, _, _ = strings.Cut(section, "\n## ")
	want := map[string]string{"MESSAGE_BYTES": fmt.Sprint(limit.MessageBytes), "QUEUE_BYTES": fmt.Sprint(limit.QueueBytes), "CHANNELS_PER_CLIENT": fmt.Sprint(limit.ChannelsPerClient),
		"COMMANDS_PER_SECOND": fmt.Sprint(limit.CommandsPerSecond), "SUBSCRIBES_PER_SECOND": fmt.Sprint(limit.SubscribesPerSecond),
		"publishRate": fmt.Sprint(limit.PublishesPerSecond), "dataBytes": fmt.Sprint(limit.DataBytes), "CONNECTIONS_PER_USER": fmt.Sprint(limit.ConnectionsPerUser),
		"CONNECTIONS_PER_IP": fmt.Sprint(limit.ConnectionsPerIP), "UNAUTHENTICATED": fmt.Sprint(limit.Unauthenticated), "HANDSHAKE_TIMEOUT": limit.HandshakeTimeout.String(),
		"": fmt.Sprint(limit.ChannelBytes, limit.PublicationIDBytes)}
	got := map[string]string{}
	for _, m := range limitRow.FindAllStringSubmatch(section, -1) {
		if m[2] == "default" || m[2] == "---" {
			continue
		}
		got[m[1]] = strings.TrimSpace(got[m[1]] + " " + m[2])
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("limits on the page %v, in the code %v", got, want)
	}
	for what, says := range map[string]bool{"25 s": limit.PingInterval == 25*time.Second && expiredGrace == 25*time.Second, "within 10 s": limit.PongTimeout == 10*time.Second,
		"1,000 publications": limit.HistoryPage == 1000, "window of 5 s": limit.AnnounceWindow == 5*time.Second, "heartbeat (5 s)": limit.Heartbeat == 5*time.Second,
		"16 KiB": token.LengthMax == 16<<10, "at most 1,000 of each node": connectionsMost == 1000} {
		if !strings.Contains(page, what) || !says {
			t.Errorf("the page says %q: %v; it is so: %v", what, strings.Contains(page, what), says)
		}
	}
}

func TestProtocolPageVersions(t *testing.T) {
	page, _ := protocolPage(t)
	for file, pattern := range map[string]string{"../../test/package.json": `"centrifuge": "([^"]+)"`, "../../go.mod": `centrifugal/centrifuge-go (\S+)`,
		"../../test/sdk/strangers/requirements.txt": `centrifuge-python==(\S+)`, "../../test/sdk/strangers/pom.xml": `centrifuge-java</artifactId>\s+<version>([^<]+)`} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(pattern).FindSubmatch(raw)
		if m == nil || !strings.Contains(page, "| "+string(m[1])+" |") {
			t.Errorf("%s has %s, the page another", file, m)
		}
	}
}
