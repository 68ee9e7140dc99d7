package conn

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/shared/limit"
	"tideline/shared/token"
)

// The public Autobahn fuzzing cases that apply, by their numbers, over a bare TCP connection. A node echoes nothing: where a case wants an echo, the
// message is a command, padded with spaces, and its reply is the echo. What differs from a case is said in its row; docs/protocol.md lists it.

const opContinue = 0x0

// wire makes one client frame: first is FIN, RSV and opcode.
func wire(first byte, payload []byte) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

func text(payload string) []byte           { return wire(final|opText, []byte(payload)) }
func ping(payload string) []byte           { return wire(final|opPing, []byte(payload)) }
func pong(payload string) []byte           { return wire(final|opPong, []byte(payload)) }
func part(op byte, payload string) []byte  { return wire(op, []byte(payload)) }
func last(payload string) []byte           { return wire(final|opContinue, []byte(payload)) }
func closing(code int, text string) []byte { return wire(final|opClose, closeBody(code, text)) }

func closeBody(code int, text string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), text...)
}

// echo is a message of n bytes that is answered once.
func echo(n int) string {
	const command = `{"id":7,"rpc":{"method":"time"}}`
	return command + strings.Repeat(" ", max(0, n-len(command)))
}

// octets sends a frame byte by byte.
func octets(frames ...[]byte) (chunks [][]byte) {
	for _, c := range bytes.Join(frames, nil) {
		chunks = append(chunks, []byte{c})
	}
	return chunks
}

func together(frames ...[]byte) [][]byte { return [][]byte{bytes.Join(frames, nil)} }

// outcome of a case: what comes back in order ("echo", "pong:payload"), and the close code: 0 when the connection must still work.
type outcome struct {
	came []string
	code int
}

const cleanClose = noStatus // a close frame without a code

type autobahnCase struct {
	number, does string
	send         [][]byte
	want         outcome
}

func fine(came ...string) outcome              { return outcome{came, 0} }
func closed(code int, came ...string) outcome  { return outcome{came, code} }
func times(n int, what string) (came []string) { return slices.Repeat([]string{what}, n) }

func framingCases() []autobahnCase {
	long := strings.Repeat("\xfe", 125)
	m := echo(0)
	half, rest := m[:11], m[11:]
	cases := []autobahnCase{
		{"1.1.1", "a text message without payload: no command, 3501", together(text("")), closed(3501)},
		{"1.2.1", "a binary message: not on a JSON connection, 3501", together(wire(final|opBinary, []byte(m))), closed(3501)},
		{"2.1", "a ping without payload", together(ping("")), fine("pong:")},
		{"2.2", "a ping with a small text", together(ping("Hello, world!")), fine("pong:Hello, world!")},
		{"2.3", "a ping with a binary payload that is no UTF-8", together(ping("\x00\xff\xfe\xfd")), fine("pong:\x00\xff\xfe\xfd")},
		{"2.4", "a ping with 125 bytes", together(ping(long)), fine("pong:" + long)},
		{"2.5", "a ping with 126 bytes", together(ping(long + "x")), closed(1002)},
		{"2.6", "a ping with 125 bytes, octet by octet", octets(ping(long)), fine("pong:" + long)},
		{"2.7", "an unsolicited pong without payload", together(pong("")), fine()},
		{"2.8", "an unsolicited pong with payload", together(pong("unsolicited")), fine()},
		{"2.9", "an unsolicited pong, then a ping", together(pong("unsolicited"), ping("p")), fine("pong:p")},
		{"2.10", "10 pings", together(slices.Repeat([][]byte{ping("p")}, 10)...), fine(times(10, "pong:p")...)},
		{"2.11", "10 pings, octet by octet", octets(slices.Repeat([][]byte{ping("p")}, 10)...), fine(times(10, "pong:p")...)},
		{"3.1", "a text with RSV 1", together(wire(final|0x10|opText, []byte(m))), closed(1002)},
		{"3.2", "a text, one with RSV 2, a ping", together(text(m), wire(final|0x20|opText, []byte(m)), ping("")), closed(1002, "echo")},
		{"3.3", "the same, frame by frame", [][]byte{text(m), wire(final|0x30|opText, []byte(m)), ping("")}, closed(1002, "echo")},
		{"3.4", "the same with RSV 4, octet by octet", octets(text(m), wire(final|rsv1|opText, []byte(m)), ping("")), closed(1002, "echo")},
		{"3.5", "a binary message with RSV 5", together(wire(final|0x50|opBinary, []byte(m))), closed(1002)},
		{"3.6", "a ping with RSV 6", together(wire(final|0x60|opPing, nil)), closed(1002)},
		{"3.7", "a close with RSV 7", together(wire(final|0x70|opClose, closeBody(1000, ""))), closed(1002)},
		{"5.1", "a ping in two fragments", together(part(opPing, "a"), last("b")), closed(1002)},
		{"5.2", "a pong in two fragments", together(part(opPong, "a"), last("b")), closed(1002)},
		{"5.3", "a text in two fragments", together(part(opText, half), last(rest)), fine("echo")},
		{"5.4", "the same, frame by frame", [][]byte{part(opText, half), last(rest)}, fine("echo")},
		{"5.5", "the same, octet by octet", octets(part(opText, half), last(rest)), fine("echo")},
		{"5.6", "a ping between two fragments", together(part(opText, half), ping("p"), last(rest)), fine("pong:p", "echo")},
		{"5.7", "the same, frame by frame", [][]byte{part(opText, half), ping("p"), last(rest)}, fine("pong:p", "echo")},
		{"5.8", "the same, octet by octet", octets(part(opText, half), ping("p"), last(rest)), fine("pong:p", "echo")},
		{"5.9", "a continuation (FIN) of nothing, then a text", together(last("x"), text(m)), closed(1002)},
		{"5.10", "the same, frame by frame", [][]byte{last("x"), text(m)}, closed(1002)},
		{"5.11", "the same, octet by octet", octets(last("x"), text(m)), closed(1002)},
		{"5.12", "a continuation (no FIN) of nothing, then a text", together(part(opContinue, "x"), text(m)), closed(1002)},
		{"5.13", "the same, frame by frame", [][]byte{part(opContinue, "x"), text(m)}, closed(1002)},
		{"5.14", "the same, octet by octet", octets(part(opContinue, "x"), text(m)), closed(1002)},
		{"5.15", "a text in two fragments, a continuation of nothing, a text", together(part(opText, half), last(rest), part(opContinue, "x"), text(m)), closed(1002, "echo")},
		{"5.16", "twice: a continuation (no FIN) of nothing, a text in two fragments", together(part(opContinue, "x"), part(opText, half), last(rest)), closed(1002)},
		{"5.17", "twice: a continuation (FIN) of nothing, a text in two fragments", together(last("x"), part(opText, half), last(rest)), closed(1002)},
		{"5.18", "two fragments with opcode text", together(part(opText, half), wire(final|opText, []byte(rest))), closed(1002)},
		{"5.19", "five fragments with pings between, in several writes", [][]byte{append(part(opText, half), part(opContinue, rest[:2])...), ping("1"),
			append(part(opContinue, rest[2:4]), part(opContinue, rest[4:6])...), ping("2"), last(rest[6:])}, fine("pong:1", "pong:2", "echo")},
		{"5.20", "the same in one", together(part(opText, half), part(opContinue, rest[:2]), ping("1"), part(opContinue, rest[2:4]), part(opContinue, rest[4:6]),
			ping("2"), last(rest[6:])), fine("pong:1", "pong:2", "echo")},
		{"9.1.1", "a text of 64 KiB", together(text(echo(64 << 10))), fine("echo")},
		{"9.1.2", "a text of 256 KiB: past the limit, 1009", together(text(echo(256 << 10))), closed(1009)},
		{"-", "a message past the limit in fragments, 1009", together(part(opText, echo(limit.MessageBytes)), last(" ")), closed(1009)},
		{"-", "a length that claims 2^63 bytes", together(append([]byte{final | opText, 0xff, 0x80}, make([]byte, 11)...)), closed(1009)},
		{"-", "a frame without a mask (RFC 6455, 5.1)", together(append([]byte{final | opText, byte(len(m))}, m...)), closed(1002)},
	}
	for i, n := range []int{125, 126, 127, 128, 65535, 65536} {
		cases = append(cases, autobahnCase{fmt.Sprintf("1.1.%d", i+2), fmt.Sprintf("a text of %d bytes", n), together(text(echo(n))), fine("echo")})
	}
	chopped := slices.Collect(slices.Chunk(text(echo(65536)), 997))
	cases = append(cases, autobahnCase{"1.1.8", "a text of 65536 bytes in chops of 997", chopped, fine("echo")})
	var fragments [][]byte
	for i, piece := range slices.Collect(slices.Chunk([]byte(echo(65536)), 1300)) {
		fragments = append(fragments, part(map[bool]byte{true: opText, false: opContinue}[i == 0], string(piece)))
	}
	cases = append(cases, autobahnCase{"10.1.1", "a text of 65536 bytes in fragments of 1300", together(append(fragments, last(""))...), fine("echo")})
	for i, op := range []byte{3, 4, 5, 6, 7} {
		cases = append(cases, autobahnCase{fmt.Sprintf("4.1.%d", i+1), fmt.Sprintf("a text, then the reserved data opcode %d", op),
			together(text(m), wire(final|op, nil), ping("")), closed(1002, "echo")})
	}
	for i, op := range []byte{11, 12, 13, 14, 15} {
		cases = append(cases, autobahnCase{fmt.Sprintf("4.2.%d", i+1), fmt.Sprintf("a text, then the reserved control opcode %d", op),
			together(text(m), wire(final|op, nil), ping("")), closed(1002, "echo")})
	}
	return cases
}

func closeCases() []autobahnCase {
	m := echo(0)
	reason := strings.Repeat("*", 123)
	cases := []autobahnCase{
		{"7.1.1", "a text, then a close", together(text(m), closing(1000, "")), closed(1000, "echo")},
		{"7.1.2", "two closes", together(closing(1000, ""), closing(1000, "")), closed(1000)},
		{"7.1.3", "a ping after the close", together(closing(1000, ""), ping("late")), closed(1000)},
		{"7.1.4", "a text after the close", together(closing(1000, ""), text(m)), closed(1000)},
		{"7.1.5", "a close between two fragments", together(part(opText, m[:5]), closing(1000, ""), last(m[5:])), closed(1000)},
		{"7.3.1", "a close without payload", together(wire(final|opClose, nil)), closed(cleanClose)},
		{"7.3.2", "a close with one byte: closed cleanly, without a code", together(wire(final|opClose, []byte("a"))), closed(cleanClose)},
		{"7.3.3", "a close with a code", together(closing(1000, "")), closed(1000)},
		{"7.3.4", "a close with a code and a reason", together(closing(1000, "Hello World!")), closed(1000)},
		{"7.3.5", "a close with the longest reason", together(closing(1000, reason)), closed(1000)},
		{"7.3.6", "a close with a reason that is too long", together(closing(1000, reason+"*")), closed(1002)},
		{"7.5.1", "a close with a reason that is no UTF-8", together(closing(1000, "\xce\xba\xed\xa0\x80")), closed(1002)},
		{"7.13.1", "a close with code 5000", together(closing(5000, "")), closed(1002)},
	}
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		cases = append(cases, autobahnCase{fmt.Sprintf("7.7.%d", i+1), fmt.Sprintf("a close with the valid code %d", code), together(closing(code, "")), closed(code)})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		cases = append(cases, autobahnCase{fmt.Sprintf("7.9.%d", i+1), fmt.Sprintf("a close with the invalid code %d", code), together(closing(code, "")), closed(1002)})
	}
	return cases
}

// utf8Cases are one sequence for each of the categories 6.5 to 6.23 and each way in it, as part of a command.
func utf8Cases() []autobahnCase {
	wrap := func(s string) string { return `{"id":7,"rpc":{"method":"time","data":"` + s + `"}}` }
	const word = "κόσμε" // all of its prefixes: 6.6
	broken := word[:3] + "\xed\xa0\x80edited"
	cases := []autobahnCase{
		{"6.1.1", "a text without payload: no command, 3501", together(text("")), closed(3501)},
		{"6.1.2", "three fragments without payload: no command, 3501", together(part(opText, ""), part(opContinue, ""), last("")), closed(3501)},
		{"6.1.3", "three fragments, the first and last without payload", together(part(opText, ""), part(opContinue, echo(0)), last("")), fine("echo")},
		{"6.2.1", "valid UTF-8", together(text(wrap("Hello-µ@ßöäüàá-UTF-8!!"))), fine("echo")},
		{"6.2.2", "valid UTF-8 in two fragments, cut between characters", together(part(opText, wrap(word)[:41]), last(wrap(word)[41:])), fine("echo")},
		{"6.2.3", "valid UTF-8 in fragments of an octet", octetFragments(wrap(word)), fine("echo")},
		{"6.3.1", "UTF-8 that breaks off", together(text(wrap(broken))), closed(1007)},
		{"6.3.2", "the same in fragments of an octet", octetFragments(wrap(broken)), closed(1007)},
		// 6.4 wants the connection failed before the message is complete; here it is failed when it is (Autobahn calls that non-strict).
		{"6.4.1", "invalid UTF-8 in the second of three fragments: failed at the end", together(part(opText, wrap(word)[:41]), part(opContinue, "\xf4\x90\x80\x80"), last("x")), closed(1007)},
	}
	add := func(category int, valid bool, sequences ...string) {
		for i, s := range sequences {
			c := autobahnCase{fmt.Sprintf("6.%d.%d", category, i+1), fmt.Sprintf("UTF-8 % x", s), together(text(wrap(s))), closed(1007)}
			if valid {
				c.want = fine("echo")
			}
			cases = append(cases, c)
		}
	}
	add(5, true, "hello$world", "hello¢world", "hello€world", "hello\U00024b62world", word)
	for i := 1; i <= len(word); i++ {
		add(6, strings.ToValidUTF8(word[:i], "") == word[:i], word[:i])
		cases[len(cases)-1].number = fmt.Sprintf("6.6.%d", i)
	}
	add(7, true, "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80") // without 00, which JSON doesn't allow
	add(8, false, "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80")
	add(9, true, "\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf")
	add(10, false, "\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf")
	add(11, true, "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf")
	add(11, false, "\xf4\x90\x80\x80")
	add(12, false, "\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80\xbf\x80\xbf")
	add(13, false, "\xc0 \xc1 \xdf ", "\xe0 \xef ", "\xf0 \xf7 ", "\xf8 \xfb ", "\xfc \xfd ")
	incomplete := []string{"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80", "\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf"}
	add(14, false, incomplete...)
	add(15, false, strings.Join(incomplete, ""))
	add(16, false, "\xfe", "\xff", "\xfe\xfe\xff\xff")
	add(17, false, "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf")
	add(18, false, "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf")
	add(19, false, "\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80")
	add(20, false, "\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf")
	add(21, false, "\xed\xa0\x80\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf", "\xed\xaf\xbf\xed\xbf\xbf")
	add(22, true, "\xef\xbf\xbe", "\xf0\x9f\xbf\xbe", "\xf3\xbf\xbf\xbf", "\xf4\x8f\xbf\xbe")
	add(23, true, "\xef\xbf\xb9", "\xef\xbf\xba", "\xef\xbf\xbb", "\xef\xbf\xbc", "\xef\xbf\xbd")
	return cases
}

func octetFragments(s string) [][]byte {
	frames := [][]byte{part(opText, "")}
	for i := range len(s) {
		frames = append(frames, part(opContinue, s[i:i+1]))
	}
	return together(append(frames, last(""))...)
}

func TestAutobahn(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	for _, c := range slices.Concat(framingCases(), closeCases(), utf8Cases()) {
		t.Run(c.number+" "+c.does, func(t *testing.T) {
			t.Parallel()
			b := n.bare(t)
			for _, chunk := range c.send {
				if _, err := b.Write(chunk); err != nil {
					break // it has been closed; what came is read below
				}
			}
			if c.want.code == 0 { // it still works
				if _, err := b.Write(text(`{"id":9,"rpc":{"method":"time"}}`)); err != nil {
					t.Fatal(err)
				}
			}
			if got := b.outcome(t); !slices.Equal(got.came, c.want.came) || got.code != c.want.code {
				t.Errorf("%.200q, want %.200q", fmt.Sprint(got), fmt.Sprint(c.want))
			}
		})
	}
}

// bare is a connected client without a WebSocket library.
type bare struct {
	net.Conn
	r *bufio.Reader
}

func (n *node) bare(t *testing.T) *bare {
	t.Helper()
	host, _, _ := strings.Cut(strings.TrimPrefix(n.url, "ws://"), "/")
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	b := &bare{c, bufio.NewReader(c)}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", Path, host)
	res, err := http.ReadResponse(b.r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("handshake: %v %v", res, err)
	}
	if _, err := c.Write(text(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann"})))); err != nil {
		t.Fatal(err)
	}
	if op, data, err := b.frame(t); err != nil || op != opText || !strings.Contains(string(data), `"connect"`) {
		t.Fatalf("connect: %s %v", data, err)
	}
	return b
}

// frame reads one frame and checks that a server may send it.
func (b *bare) frame(t *testing.T) (op byte, payload []byte, err error) {
	t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(b.r, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&0xf0 != final || head[1]&0x80 != 0 {
		t.Fatalf("frame header % x", head)
	}
	size := uint64(head[1])
	switch size {
	case 126:
		var n uint16
		err = binary.Read(b.r, binary.BigEndian, &n)
		size = uint64(n)
	case 127:
		err = binary.Read(b.r, binary.BigEndian, &size)
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(b.r, payload)
	return head[0] & 0xf, payload, err
}

// outcome reads until the answer to command 9, or the close frame and the end after it.
func (b *bare) outcome(t *testing.T) (o outcome) {
	t.Helper()
	for {
		op, payload, err := b.frame(t)
		if err != nil {
			t.Fatalf("ended without a close frame after %.100q: %v", o.came, err)
		}
		switch op {
		case opPong:
			o.came = append(o.came, "pong:"+string(payload))
		case opText:
			for line := range strings.SplitSeq(string(payload), "\n") {
				switch {
				case strings.HasPrefix(line, `{"id":7,"rpc"`):
					o.came = append(o.came, "echo")
				case strings.HasPrefix(line, `{"id":9,"rpc"`):
					return o
				default:
					t.Fatalf("read %s", line)
				}
			}
		case opClose:
			o.code = cleanClose
			if len(payload) >= 2 {
				o.code = int(binary.BigEndian.Uint16(payload))
			}
			if o.code >= 3500 && o.code < 3600 { // ours: the client says goodbye, too; the others here are its own, answered
				if _, err := b.Write(wire(final|opClose, payload[:2])); err != nil {
					t.Errorf("before the client has answered: %v", err)
				}
			} else if err := b.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Errorf("before the client has read the close frame: %v", err)
			}
			if n, err := io.Copy(io.Discard, b.r); n > 0 || err != nil {
				t.Errorf("%d bytes after the close frame, %v", n, err)
			}
			return o
		default:
			t.Fatalf("opcode %d", op)
		}
	}
}

func TestCompression(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Compression = true })
	dial := func(t *testing.T, offer bool) *raw {
		t.Helper()
		d := websocket.Dialer{EnableCompression: offer}
		ws, res, err := d.Dial(n.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.Close() })
		if agreed := strings.Contains(res.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate"); agreed != offer {
			t.Errorf("offered %v, agreed %v", offer, agreed)
		}
		if err := ws.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
			t.Fatal(err)
		}
		r := &raw{t: t, ws: ws}
		r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann"})))
		r.want(`{"id":1,"connect":{}}`)
		r.send(`{"id":2,"subscribe":{"channel":"system"}}`)
		r.want(`{"id":2,"subscribe":{}}`)
		return r
	}
	with, without := dial(t, true), dial(t, false)
	for _, size := range []int{1, deflateLeast, 20_000} {
		n.publish(t, "system", fmt.Sprintf("%q", strings.Repeat("y", size)))
		for _, r := range []*raw{with, without} {
			r.want(fmt.Sprintf(`{"push":{"pub":{"data":%q}}}`, strings.Repeat("y", size)))
		}
	}
	with.send(`{"id":3,"rpc":{"method":"time"}}` + strings.Repeat(" ", limit.MessageBytes-100))
	with.want(`{"id":3,"rpc":{}}`)
	with.send(strings.Repeat(" ", 100*limit.MessageBytes)) // some kilobytes on the wire
	with.wantClose(1009)
	for address, subprotocol := range map[string][]string{n.url: {subprotocolProtobuf}, strings.TrimSuffix(n.url, Path) + PathUniWebSocket: nil} {
		ws, res, err := (&websocket.Dialer{EnableCompression: true, Subprotocols: subprotocol}).Dial(address, nil)
		if err != nil {
			t.Fatal(err)
		}
		ws.Close()
		if agreed := res.Header.Get("Sec-Websocket-Extensions"); agreed != "" {
			t.Errorf("%s %v: agreed to %s, which is for JSON on the other door", address, subprotocol, agreed)
		}
	}
}
