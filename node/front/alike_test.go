package front

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

var date = regexp.MustCompile(`Date: [^\r]*`)

// say sends bytes and answers all that comes back until the server closes, the dates left out and the header's fields in any order.
func say(t testing.TB, addr string, said []byte) string {
	t.Helper()
	c := dial(t, addr)
	if _, err := c.Write(said); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "" // reset
	}
	heard, _ := io.ReadAll(c) // a reset is an answer too
	return date.ReplaceAllString(sorted(string(heard)), "Date:")
}

// sorted sorts the lines of each head.
func sorted(s string) string {
	var out strings.Builder
	for part := range strings.SplitSeq(s, "\r\n\r\n") {
		lines := strings.Split(part, "\r\n")
		for i := 1; i < len(lines); i++ {
			for k := i; k > 1 && lines[k] < lines[k-1]; k-- {
				lines[k], lines[k-1] = lines[k-1], lines[k]
			}
		}
		out.WriteString(strings.Join(lines, "\r\n") + "\r\n\r\n")
	}
	return out.String()
}

const host = "Host: example.com\r\n"

// requests are what both servers must answer alike.
var requests = []string{
	"GET /here HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=silent HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=empty HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=error HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=strange HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=late HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=typed HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=sized HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=close HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=abort HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=panic HTTP/1.1\r\n" + host + "\r\n",
	"GET /here?as=hijack HTTP/1.1\r\n" + host + "\r\n",
	"GET /elsewhere HTTP/1.1\r\n" + host + "\r\n",
	"GET /here HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host + "Connection: keep-alive\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
	"GET /here%2F..%2f?%zz HTTP/1.1\r\n" + host + "\r\n",
	"GET /here#x HTTP/1.1\r\n" + host + "\r\n",
	"GET /here HTTP/1.0\r\n\r\n",
	"GET /here HTTP/1.2\r\n" + host + "\r\n",
	"GET /here HTTP/2.0\r\n" + host + "\r\n",
	"GET /here\r\n\r\n",
	"GET /here  HTTP/1.1\r\n" + host + "\r\n",
	"GET /here HTTP/1.1\r\n\r\n",
	"GET /here HTTP/1.1\r\nHost:\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host + host + "\r\n",
	"GET /here HTTP/1.1\r\nHost: a b\r\n\r\n",
	"GET /here HTTP/1.1\r\nHost: a/b\r\n\r\n",
	"GET /here HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"GET /here HTTP/1.1\n" + "Host: a\n\n",
	"GET /here HTTP/1.1\r\n" + host + "X: \x01\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host + "X: \xe4\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host + "X\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host + "X : y\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host + "X(: y\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host + ": y\r\n\r\n",
	"GET /here HTTP/1.1\r\n" + host,
	"GET /here HTTP/1.1\r\n" + host + "\r\nGET /here?2 HTTP/1.1\r\n" + host + "\r\n",
	"GET /here HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\n b",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n",
	"POST /here HTTP/1.1\r\n" + host + "\r\n",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: +2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Content-Length: 2\r\nContent-Length: 1\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
	"POST /here HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nab\r\n0\r\n\r\n",
	"POST /here HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Expect: something\r\nContent-Length: 2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Expect:\r\nContent-Length: 2\r\n\r\nab",
	"POST /here HTTP/1.1\r\n" + host + "Trailer: X\r\nContent-Length: 2\r\n\r\nab",
	"HEAD /here HTTP/1.1\r\n" + host + "\r\n",
	"OPTIONS * HTTP/1.1\r\n" + host + "\r\n",
	"\r\nGET /here HTTP/1.1\r\n" + host + "\r\n",
	"\x16\x03\x01\x02\x00\x01\x00", "x", "",
}

// Whatever is said to a server behind a front, its answer is what the server would have said alone.
func TestAnswersAsNetHTTPDoes(t *testing.T) {
	front, alone := startServer(t, http.HandlerFunc(echo), false, nil), startServer(t, http.HandlerFunc(echo), true, nil)
	for _, said := range requests {
		compare(t, front, alone, []byte(said))
	}
}

// compare asks both, and again where they differ: an answer that net/http gives before it has read all may be lost to a reset.
func compare(t *testing.T, front, alone string, said []byte) {
	t.Helper()
	var got, want string
	for range 5 {
		if got, want = say(t, front, said), say(t, alone, said); got == want {
			return
		}
	}
	t.Errorf("%q is answered\n%s\nnet/http alone says\n%s", said, got, want)
}

func FuzzAnswersAsNetHTTPDoes(f *testing.F) {
	for _, said := range requests {
		f.Add([]byte(said))
	}
	front, alone := startServer(f, http.HandlerFunc(echo), false, nil), startServer(f, http.HandlerFunc(echo), true, nil)
	f.Fuzz(func(t *testing.T, said []byte) {
		compare(t, front, alone, said[:min(len(said), 2*RequestBytes)])
	})
}
