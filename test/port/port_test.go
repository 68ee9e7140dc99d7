package port

import (
	"net"
	"strconv"
	"testing"
)

func TestFree(t *testing.T) {
	for range 100 {
		port := Free(t)
		if n, err := strconv.Atoi(port); err != nil || n < first || n > last {
			t.Fatalf("port %q", port)
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatalf("not free: %v", err)
		}
		defer l.Close() // a taken one is not answered again
	}
}
