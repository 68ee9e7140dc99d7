// Command peers is what Tideline is measured against: thin servers over other libraries, each with the settings that its authors
// recommend for many connections and little else.
//
//	peers floor        gorilla/websocket and go-redis: one PreparedMessage a publication, no queues, no history, no permissions
//	peers centrifuge   the centrifuge library with its Redis broker; HISTORY=<size> turns history, positioning and recovery on
//
// Both listen on PORT (host:port), use REDIS (host:port), print "ready host:port", and take publications at
// POST /publish?channel=<name>, with the data as the body.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

// publishBytes is the longest publication that is taken.
const publishBytes = 64 << 10

// server is one of the peers.
type server interface {
	register(mux *http.ServeMux)
	publish(channel string, data []byte) error
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "peers: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	kind := ""
	if len(os.Args) == 2 {
		kind = os.Args[1]
	}
	var s server
	var err error
	switch kind {
	case "floor":
		s, err = newFloor(os.Getenv("REDIS"))
	case "centrifuge":
		s, err = newCentrifuge(os.Getenv("REDIS"), os.Getenv("HISTORY"))
	default:
		return fmt.Errorf("which one? floor or centrifuge")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	mux := http.NewServeMux()
	s.register(mux)
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(io.LimitReader(r.Body, publishBytes))
		if err == nil {
			err = s.publish(r.FormValue("channel"), data)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	l, err := net.Listen("tcp", os.Getenv("PORT"))
	if err != nil {
		return err
	}
	fmt.Println("ready", l.Addr())
	return http.Serve(l, mux)
}
