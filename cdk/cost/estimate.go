package cost

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Bounds of a Load.
const (
	MaxConnections = 100_000_000
	MaxRate        = 60_000 // messages a minute to one connection
	MaxSize        = 64 << 10
	MaxPerNode     = 10_000_000
)

// Alarms is how many a prod stage has at most; the others have fewer. A test of the stack counts them.
const Alarms = 50

// Assumptions about what the load does not say, with their unit. The printed formulae name them.
const (
	hours        = 730.0 // in a month
	minutes      = hours * 60
	envelope     = 100.0 // bytes around the data of a push, in JSON
	pingBytes    = 4.0   // a ping in its frame
	pings        = 60 / 25.0
	session      = 1.0      // hours that a connection lasts
	diskGB       = 20.0     // of a node
	lcuActive    = 3000.0   // connections of one LCU
	lcuNew       = 25.0     // new connections a second of one LCU
	lcuGB        = 1.0      // GB an hour of one LCU
	callGB       = 0.25     // memory of a function
	callSeconds  = 0.03     // of one REST write
	outboxBatch  = 10.0     // changes in one call of the outbox
	writeBytes   = 1024.0   // of one DynamoDB write unit
	metrics      = 25.0     // of nodes and functions
	cacheGB      = 1.0      // kept in a serverless cache
	gatewayBytes = 32 << 10 // of one metered message of API Gateway
	appsyncBytes = 5 << 10  // of one metered operation of AppSync Events
)

// Load is what users do. Each publication is written once over REST, and heard by Fanout connections.
type Load struct {
	Connections float64 // always on
	Rate        float64 // messages a minute to each connection
	Size        float64 // bytes of a message's data
	Fanout      float64 // connections that hear one publication
}

// Deployment is what of a stack's settings costs money.
type Deployment struct {
	Instance, CacheNode string // types; CacheNode is empty for a serverless cache
	CacheNodes          float64
	ExternalCache       bool // somebody else's bill
	MinNodes            float64
	PerNode             float64 // connections that a node holds
	Zones, Endpoints    float64
	Balancers, Secrets  float64
	CloudFront          bool // else the world reaches the load balancer itself
	App                 bool // REST writes by the todo application
}

// Line is one item of a bill.
type Line struct {
	Item, Formula string
	Dollars       float64
	Confirmed     bool
}

// Bill is the lines of one way to do it.
type Bill struct {
	Name        string
	Lines       []Line
	Connections float64 // of the load
}

// Total of a bill, in dollars a month.
func (b Bill) Total() float64 {
	sum := 0.0
	for _, l := range b.Lines {
		sum += l.Dollars
	}
	return sum
}

// check names everything that is out of bounds.
func (l Load) check() error {
	var errs []error
	for _, v := range []struct {
		name         string
		value, least float64
		most         float64
	}{{"connections", l.Connections, 1, MaxConnections}, {"rate", l.Rate, 0, MaxRate}, {"size", l.Size, 1, MaxSize}, {"fanout", l.Fanout, 1, MaxConnections}} {
		if !(v.value >= v.least && v.value <= v.most) {
			errs = append(errs, fmt.Errorf("%s=%v: a number from %v to %v", v.name, v.value, v.least, v.most))
		}
	}
	if l.Fanout > l.Connections {
		errs = append(errs, fmt.Errorf("fanout=%v: at most all connections, %v", l.Fanout, l.Connections))
	}
	return errors.Join(errs...)
}

// Estimate answers the deployment's bill and those of API Gateway WebSocket and AppSync Events, at list prices, without free tiers and discounts.
func Estimate(prices Prices, l Load, d Deployment) ([]Bill, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	if !(d.PerNode >= 1 && d.PerNode <= MaxPerNode) {
		return nil, fmt.Errorf("connections per node: %v is not from 1 to %d", d.PerNode, MaxPerNode)
	}
	e := estimator{prices: prices, load: l, deliveries: l.Connections * l.Rate * minutes}
	e.publications = e.deliveries / l.Fanout
	bills := []Bill{e.tideline(d), e.gateway(), e.appsync()}
	for i := range bills {
		bills[i].Connections = l.Connections
	}
	if d.App {
		for i := range bills {
			bills[i].Lines = append(bills[i].Lines, e.writes()...)
		}
	}
	return bills, errors.Join(e.errs...)
}

type estimator struct {
	prices                   Prices
	load                     Load
	deliveries, publications float64 // a month
	errs                     []error
}

// line prices a quantity; the formula says how it came about.
func (e *estimator) line(item, key string, quantity float64, formula string, args ...any) Line {
	p, ok := e.prices[key]
	if !ok {
		e.errs = append(e.errs, fmt.Errorf("cdk/cost/prices.csv has no price of %s: add a row", key))
	}
	each := "tiers"
	if len(p.tiers) == 1 {
		each = "$" + strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.10f", p.tiers[0].each), "0"), ".")
	}
	return Line{Item: item, Formula: fmt.Sprintf(formula, args...) + " × " + each, Dollars: p.of(quantity), Confirmed: p.confirmed}
}

// egressGB is what leaves for browsers in a month: messages in their envelopes, and pings.
func (e *estimator) egressGB() float64 {
	return (e.deliveries*(e.load.Size+envelope) + e.load.Connections*pings*minutes*pingBytes) / 1e9
}

func (e *estimator) tideline(d Deployment) Bill {
	nodes := math.Max(d.MinNodes, math.Ceil(e.load.Connections/d.PerNode))
	out := e.egressGB()
	lcu := math.Max(e.load.Connections/lcuActive, math.Max(e.load.Connections/(session*3600)/lcuNew, out/hours/lcuGB))
	b := Bill{Name: "Tideline"}
	add := func(l Line) { b.Lines = append(b.Lines, l) }
	add(e.line("nodes", "ec2."+d.Instance, nodes*hours, "max(%.0f, ⌈%.0f connections / %.0f⌉) = %.0f %s × %.0f h", d.MinNodes, e.load.Connections, d.PerNode, nodes, d.Instance, hours))
	add(e.line("their disks", "ebs.gp3", nodes*diskGB, "%.0f × %.0f GB", nodes, diskGB))
	add(e.line("their figures every minute", "ec2.monitoring", nodes, "%.0f", nodes))
	add(e.line("load balancer", "alb.hour", d.Balancers*hours, "%.0f × %.0f h", d.Balancers, hours))
	add(e.line("its capacity", "alb.lcu", lcu*hours, "max(%.0f / %.0f active, new / %.0f, %.2f GB/h) = %.2f LCU × %.0f h", e.load.Connections, lcuActive, lcuNew, out/hours, lcu, hours))
	switch {
	case d.ExternalCache:
	case d.CacheNode == "":
		add(e.line("Redis: data", "cache.serverless.gb", cacheGB*hours, "%.0f GB × %.0f h", cacheGB, hours))
		units := e.publications * (1 + nodes) * math.Ceil((e.load.Size+envelope)/1024)
		add(e.line("Redis: commands", "cache.serverless.ecpu", units, "%.0f publications × (1 + %.0f nodes) × KB, at least", e.publications, nodes))
	default:
		add(e.line("Redis", d.CacheNode, d.CacheNodes*hours, "%.0f %s × %.0f h", d.CacheNodes, d.CacheNode, hours))
	}
	add(e.line("Redis to nodes across zones", "zones.gb", e.publications*nodes/2*(e.load.Size+envelope)/1e9, "%.0f publications × %.0f nodes / 2 × %.0f B", e.publications, nodes, e.load.Size+envelope))
	add(e.line("endpoints, no NAT", "endpoint.hour", d.Endpoints*d.Zones*hours, "%.0f × %.0f zones × %.0f h", d.Endpoints, d.Zones, hours))
	if d.CloudFront {
		add(e.line("CloudFront: bytes", "cloudfront.gb", out, "%.1f GB", out))
		add(e.line("CloudFront: connects", "cloudfront.request", e.load.Connections*hours/session, "%.0f × %.0f h / %.0f h a session", e.load.Connections, hours, session))
	} else {
		add(e.line("bytes to browsers", "egress.gb", out, "%.1f GB", out))
	}
	add(e.line("metrics", "cloudwatch.metric", metrics, "%.0f", metrics))
	add(e.line("alarms", "cloudwatch.alarm", Alarms, "%.0f", float64(Alarms)))
	add(e.line("dashboard", "cloudwatch.dashboard", 1, "1"))
	add(e.line("key of the signing keys", "kms.key", 1, "1"))
	if d.Secrets > 0 {
		add(e.line("keys of the server API", "secrets.secret", d.Secrets, "%.0f", d.Secrets))
	}
	return b
}

func (e *estimator) gateway() Bill {
	units := math.Ceil(e.load.Size / gatewayBytes)
	messages := (e.deliveries + e.publications) * units
	return Bill{Name: "API Gateway WebSocket, without the function that sends to each connection", Lines: []Line{
		e.line("connection minutes", "apigateway.minute", e.load.Connections*minutes, "%.0f × %.0f min", e.load.Connections, minutes),
		e.line("messages", "apigateway.message", messages, "(%.0f deliveries + %.0f publications) × %.0f of 32 KB", e.deliveries, e.publications, units),
		e.line("bytes to browsers", "egress.gb", e.egressGB(), "%.1f GB", e.egressGB())}}
}

func (e *estimator) appsync() Bill {
	units := math.Ceil(e.load.Size / appsyncBytes)
	operations := (e.deliveries + e.publications) * units
	return Bill{Name: "AppSync Events", Lines: []Line{
		e.line("connection minutes", "appsync.minute", e.load.Connections*minutes, "%.0f × %.0f min", e.load.Connections, minutes),
		e.line("operations", "appsync.operation", operations, "(%.0f deliveries + %.0f publications) × %.0f of 5 KB", e.deliveries, e.publications, units),
		e.line("bytes to browsers", "egress.gb", e.egressGB(), "%.1f GB", e.egressGB())}}
}

// writes are the same for everybody: what a REST write costs before it is published.
func (e *estimator) writes() []Line {
	units := math.Ceil(e.load.Size / writeBytes)
	calls := e.publications * (1 + 1/outboxBatch)
	return []Line{
		e.line("REST: calls of functions", "lambda.request", calls, "%.0f writes × (1 + 1 / %.0f outbox)", e.publications, outboxBatch),
		e.line("REST: their time", "lambda.gbs", calls*callGB*callSeconds, "× %.2f GB × %.2f s", callGB, callSeconds),
		e.line("REST: table", "dynamodb.write", e.publications*units, "%.0f writes × %.0f of 1 KB", e.publications, units)}
}
