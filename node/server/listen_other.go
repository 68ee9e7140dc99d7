//go:build !linux

package server

import "net"

// listenConfig is Go's own: connections are given their options one by one.
var listenConfig net.ListenConfig
