package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"tideline/cdk/cost"
	"tideline/cdk/settings"
)

// Defaults of the load, and where the measured figure is.
var (
	loadDefaults = map[string]float64{"connections": 10_000, "rate": 1, "size": 500, "fanout": 10}
	benchmarks   = filepath.Join("docs", "benchmarks.md")
)

// estimate prints what a deployment with these settings would cost in a month at list prices, beside two managed services. It asks nobody.
func estimate(_ context.Context, a arguments, out io.Writer) error {
	var errs []error
	load := map[string]float64{}
	take := func(name string, fallback float64) float64 {
		text, _ := a.context[name].(string)
		delete(a.context, name)
		if text == "" {
			return fallback
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s=%s: not a number", name, text))
		}
		return v
	}
	for name, fallback := range loadDefaults {
		load[name] = take(name, fallback)
	}
	perNode := take("perNode", 0)
	if a.context["auth"] == nil {
		a.context["auth"] = settings.AuthGuest // costs nothing; prod would ask for it
	}
	s, err := settings.Parse(a.context, "")
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	where := "PER_NODE"
	if perNode == 0 {
		where = benchmarks
		if perNode, err = cost.Measured(benchmarks); err != nil {
			return err
		}
	}
	prices, err := cost.LoadPrices()
	if err != nil {
		return err
	}
	l := cost.Load{Connections: load["connections"], Rate: load["rate"], Size: load["size"], Fanout: load["fanout"]}
	bills, err := cost.Estimate(prices, l, priced(s, perNode))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "stage %s: %.0f connections all month, %v messages a minute to each, of %.0f bytes, each publication heard by %.0f; %.0f connections a node (%s)\n",
		s.Stage, l.Connections, l.Rate, l.Size, l.Fanout, perNode, where)
	fmt.Fprintln(out, "list prices of us-east-1, without free tiers, discounts, logs, storage and taxes")
	cost.Print(out, bills)
	return nil
}

// priced is what of the settings costs money.
func priced(s settings.Settings, perNode float64) cost.Deployment {
	d := cost.Deployment{Instance: s.NodeInstanceType, MinNodes: float64(s.MinNodes), PerNode: perNode, Zones: 2, Endpoints: 3, Balancers: 1,
		CloudFront: s.Edge == settings.EdgeCloudFront, App: s.App == settings.AppTodo, ExternalCache: s.RedisURL != ""}
	if n := len(s.Zones); n > 0 {
		d.Zones = float64(n)
	}
	if s.Shell {
		d.Endpoints += 3
	}
	if s.LiveLogs {
		d.Endpoints++
	}
	if s.ServerAPISecurityGroup != "" {
		d.Endpoints, d.Balancers, d.Secrets = d.Endpoints+1, d.Balancers+1, 1
	}
	if s.VPCID != "" {
		d.Endpoints = 0 // its owner's
	}
	if s.Cache != settings.CacheServerless {
		d.CacheNode, d.CacheNodes = s.CacheNodeType, 1
		if s.Prod {
			d.CacheNodes = 2
		}
		if s.Cache == settings.CacheCluster {
			d.CacheNodes *= float64(s.CacheShards)
		}
	}
	return d
}
