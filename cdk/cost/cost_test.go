package cost

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.005*math.Max(1, math.Abs(want)) {
		t.Errorf("%s: %.4f, want %.4f", what, got, want)
	}
}

func line(t *testing.T, b Bill, item string) Line {
	t.Helper()
	for _, l := range b.Lines {
		if l.Item == item {
			return l
		}
	}
	t.Fatalf("%s has no line %q", b.Name, item)
	return Line{}
}

func shippedPrices(t *testing.T) Prices {
	t.Helper()
	p, err := LoadPrices()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var prod = Deployment{Instance: "c7g.large", CacheNode: "cache.m7g.large", CacheNodes: 2, MinNodes: 2, PerNode: 25_000, Zones: 2, Endpoints: 3, Balancers: 1, CloudFront: true, App: true}

// Worked out by hand: 100,000 connections, 1 message a minute of 500 bytes, each publication heard by 10. A month has 43,800 minutes, so there are 4.38e9 deliveries
// and 4.38e8 publications.
func TestAHundredThousandConnections(t *testing.T) {
	bills, err := Estimate(shippedPrices(t), Load{100_000, 1, 500, 10}, prod)
	if err != nil || len(bills) != 3 {
		t.Fatal(bills, err)
	}
	ours, gateway, appsync := bills[0], bills[1], bills[2]
	near(t, "nodes: 4 × 730 × 0.0725", line(t, ours, "nodes").Dollars, 211.70)
	near(t, "disks: 4 × 20 × 0.08", line(t, ours, "their disks").Dollars, 6.40)
	near(t, "balancer: 730 × 0.0225", line(t, ours, "load balancer").Dollars, 16.425)
	// 100,000 / 3,000 active connections are more than the 1.11 of new ones and the 3.65 of GB an hour.
	near(t, "33.33 LCU × 730 × 0.008", line(t, ours, "its capacity").Dollars, 194.667)
	near(t, "2 × 730 × 0.1264", line(t, ours, "Redis").Dollars, 184.544)
	near(t, "3 × 2 × 730 × 0.01", line(t, ours, "endpoints, no NAT").Dollars, 43.80)
	// 4.38e9 × 600 B + 100,000 × 2.4 × 43,800 × 4 B = 2,628 + 42.048 GB.
	near(t, "2,670.048 GB × 0.085", line(t, ours, "CloudFront: bytes").Dollars, 226.954)
	near(t, "73e6 connects × 1e-6", line(t, ours, "CloudFront: connects").Dollars, 73)
	near(t, "4.38e8 × 2 × 600 B × 0.02", line(t, ours, "Redis to nodes across zones").Dollars, 10.512)

	near(t, "4.38e9 minutes × 0.25e-6", line(t, gateway, "connection minutes").Dollars, 1095)
	// 4.818e9 messages: the first 1e9 at 1e-6, the rest at 0.8e-6.
	near(t, "1,000 + 3,054.40", line(t, gateway, "messages").Dollars, 4054.40)
	near(t, "4.38e9 minutes × 0.08e-6", line(t, appsync, "connection minutes").Dollars, 350.40)
	near(t, "4.818e9 × 1e-6", line(t, appsync, "operations").Dollars, 4818)
	near(t, "2,670.048 GB × 0.09", line(t, appsync, "bytes to browsers").Dollars, 240.304)
	for _, b := range bills {
		near(t, "4.38e8 × 1.1 × 0.2e-6", line(t, b, "REST: calls of functions").Dollars, 96.36)
		near(t, "4.818e8 × 0.25 × 0.03 × 13.3334e-6", line(t, b, "REST: their time").Dollars, 48.181)
		near(t, "4.38e8 × 0.625e-6", line(t, b, "REST: table").Dollars, 273.75)
	}
	near(t, "AppSync's total", appsync.Total(), 350.40+4818+240.304+96.36+48.181+273.75)
}

// The meters' units, at the unit and one byte past it.
func TestMessagesAreMeteredInUnits(t *testing.T) {
	for size, want := range map[float64][2]float64{5120: {1, 1}, 5121: {1, 2}, 32768: {1, 7}, 32769: {2, 7}} {
		bills, err := Estimate(shippedPrices(t), Load{1000, 1, size, 1000}, prod)
		if err != nil {
			t.Fatal(err)
		}
		n := 43_800_000.0 + 43_800
		near(t, "messages", line(t, bills[1], "messages").Dollars, n*want[0]*1e-6)
		near(t, "operations", line(t, bills[2], "operations").Dollars, n*want[1]*1e-6)
	}
}

func TestNodesAreCountedUpAndNeverBelowTheLeast(t *testing.T) {
	for connections, want := range map[float64]float64{1: 2, 50_000: 2, 50_001: 3, 75_000: 3} {
		bills, err := Estimate(shippedPrices(t), Load{connections, 1, 500, 1}, prod)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "disks tell nodes", line(t, bills[0], "their disks").Dollars, want*20*0.08)
	}
}

func TestTiersPriceWhatLiesInThem(t *testing.T) {
	p := shippedPrices(t)["cloudfront.gb"]
	for gb, want := range map[float64]float64{0: 0, 10_000: 850, 10_001: 850.08, 60_000: 850 + 3200 + 600} {
		near(t, "GB", p.of(gb), want)
	}
}

func TestOtherDeploymentsHaveOtherLines(t *testing.T) {
	d := prod
	d.CacheNode, d.CloudFront, d.App, d.Secrets, d.Balancers, d.Endpoints = "", false, false, 1, 2, 4
	bills, err := Estimate(shippedPrices(t), Load{10_000, 1, 500, 10}, d)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "serverless data: 730 × 0.084", line(t, bills[0], "Redis: data").Dollars, 61.32)
	near(t, "4.38e7 × 3 × 1 KB × 0.0023e-6", line(t, bills[0], "Redis: commands").Dollars, 0.30222)
	near(t, "two balancers", line(t, bills[0], "load balancer").Dollars, 32.85)
	line(t, bills[0], "bytes to browsers")
	for _, b := range bills {
		for _, l := range b.Lines {
			if strings.HasPrefix(l.Item, "REST") || strings.HasPrefix(l.Item, "CloudFront") {
				t.Errorf("%s: %s", b.Name, l.Item)
			}
		}
	}
}

func TestLoadsOutOfBoundsAreNamed(t *testing.T) {
	for want, l := range map[string]Load{"connections=0:": {0, 1, 500, 1}, "connections=1e+09:": {1e9, 1, 500, 1}, "rate=-1:": {10, -1, 500, 1}, "rate=60001:": {10, 60_001, 500, 1},
		"size=65537:": {10, 1, 65_537, 1}, "size=0:": {10, 1, 0, 1}, "fanout=0:": {10, 1, 500, 0}, "fanout=11: at most all connections": {10, 1, 500, 11}, "rate=NaN:": {10, math.NaN(), 500, 1}} {
		if _, err := Estimate(shippedPrices(t), l, prod); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", l, err, want)
		}
	}
	for _, perNode := range []float64{0, MaxPerNode + 1} {
		d := prod
		d.PerNode = perNode
		if _, err := Estimate(shippedPrices(t), Load{10, 1, 500, 1}, d); err == nil {
			t.Errorf("%v connections per node", perNode)
		}
	}
	d := prod
	d.Instance = "x9z.large"
	if _, err := Estimate(shippedPrices(t), Load{10, 1, 500, 1}, d); err == nil || !strings.Contains(err.Error(), "no price of ec2.x9z.large: add a row") {
		t.Errorf("%v", err)
	}
}

// The figure of the benchmarks is read from the row that they write, and only from it.
func TestConnectionsPerNodeComeFromTheBenchmarks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "benchmarks.md")
	if _, err := Measured(path); err == nil || !strings.Contains(err.Error(), "make bench writes it") {
		t.Errorf("without the page: %v", err)
	}
	for page, want := range map[string]float64{"| capacity | |\n| --- | --- |\n| connections per node | 19500 |\n": 19500, "| connections per node | 20,000 |\r\n": 20_000,
		"a node held 7 connections": 0, "| connections per node | many |": 0, "| connections per node | 1 |\n| connections per node | 2 |\n": 0, "| connections per node | 0 |": 0} {
		if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := Measured(path); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %v, %v", page, n, err)
		}
	}
	// The row is the one that the load generator writes.
	report, err := os.ReadFile(filepath.Join("..", "..", "test", "load", "report.go"))
	if err != nil || !strings.Contains(string(report), `| connections per node | %.0f |\n`) {
		t.Errorf("%v: test/load writes another row", err)
	}
	page := filepath.Join("..", "..", "docs", "benchmarks.md")
	if raw, err := os.ReadFile(page); err == nil && strings.Contains(string(raw), "| connections per node |") {
		if _, err := Measured(page); err != nil {
			t.Error(err)
		}
	}
}

func TestPricesThatCanNotBeRightAreRefused(t *testing.T) {
	const head = "key,above,price,per,region,date,status,source\n"
	for row, want := range map[string]string{"a,0,x,u,r,d,confirmed,s": `"x" is no price`, "a,0,0,u,r,d,confirmed,s": "is no price", "a,0,-1,u,r,d,confirmed,s": "is no price",
		"a,5,1,u,r,d,confirmed,s": "out of order", "a,0,1,u,r,d,confirmed,s\na,0,1,u,r,d,confirmed,s": "out of order", "a,0,1,u,r,d,maybe,s": "neither confirmed",
		"a,0,1,u,r,,confirmed,s": "column 6 is empty", "a,0,1": "wrong number of fields", "a,z,1,u,r,d,confirmed,s": "no number"} {
		if _, err := parsePrices([]byte(head + row + "\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", row, err, want)
		}
	}
}

// An estimate must not look more certain than its prices.
func TestUnconfirmedPricesAreMarked(t *testing.T) {
	prices, err := parsePrices([]byte("key,above,price,per,region,date,status,source\na,0,1,u,r,d,confirmed,s\na,10,2,u,r,d,unconfirmed,s\nb,0,1,u,r,d,confirmed,s\n"))
	if err != nil || prices["a"].confirmed || !prices["b"].confirmed {
		t.Fatalf("%+v, %v", prices, err)
	}
	var out bytes.Buffer
	Print(&out, []Bill{{Name: "x", Connections: 2, Lines: []Line{{"sure", "f", 1, true}, {"not sure", "f", 3, false}}}})
	text := out.String()
	if !strings.Contains(text, "1.00   f") || !strings.Contains(text, "3.00*  f") || !strings.Contains(text, "* rests on a price") || !strings.Contains(text, "$2.000000 a connection") {
		t.Error(text)
	}
}
