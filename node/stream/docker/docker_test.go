package docker

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestPorts(t *testing.T) {
	any4, any6, one := netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::"), netip.MustParseAddr("::1")
	got := ports([]container.PortSummary{
		{PrivatePort: 80, PublicPort: 8080, Type: "tcp", IP: any4}, {PrivatePort: 80, PublicPort: 8080, Type: "tcp", IP: any6},
		{PrivatePort: 53, Type: "udp"}, {PrivatePort: 443, PublicPort: 8443, Type: "tcp", IP: one},
	})
	if want := []string{"53/udp", "8080->80/tcp", "[::1]:8443->443/tcp"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	var many []container.PortSummary
	for i := range uint16(listedPorts + 1) {
		many = append(many, container.PortSummary{PrivatePort: i + 1, Type: "tcp"})
	}
	if n := len(ports(many[:listedPorts])); n != listedPorts {
		t.Errorf("%d ports of %d", n, listedPorts)
	}
	if n := len(ports(many)); n != listedPorts {
		t.Errorf("%d ports of %d", n, len(many))
	}
	if ports(nil) != nil {
		t.Error("ports of a container without")
	}
}
