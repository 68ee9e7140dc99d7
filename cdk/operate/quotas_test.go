package main

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"tideline/cdk/settings"
	"tideline/test/mototest"
)

func account(processors, concurrency int) quotas {
	return quotas{processors: fmt.Sprintf(`{"Quota":{"Value":%d.0}}`, processors),
		concurrency: fmt.Sprintf(`{"AccountLimit":{"ConcurrentExecutions":1000,"UnreservedConcurrentExecutions":%d}}`, concurrency)}
}

func said(t *testing.T, ask func(*report)) (string, int) {
	t.Helper()
	var out bytes.Buffer
	r := &report{out: &out}
	ask(r)
	return out.String(), r.wrong
}

// A t4g.small has 2 vCPUs; while 2 nodes are replaced there are 3, while 4 are there are 5.
func TestProcessorsAtTheQuotaAndOnePast(t *testing.T) {
	moto := mototest.Start(t).URL
	s := settings.Settings{NodeInstanceType: "t4g.small", MinNodes: 2, MaxNodes: 4}
	for quota, want := range map[int]string{10: "ok  vCPU quota", 9: "?   vCPU quota             4 nodes (maxNodes) and a roll-out need 10 vCPUs", 6: "?   vCPU quota",
		5: "no  vCPU quota             2 nodes and a roll-out need 6 vCPUs, the account may run 5"} {
		a := accountWith(t, moto, account(quota, 1000))
		out, wrong := said(t, func(r *report) { processors(t.Context(), r, a, s) })
		if !strings.HasPrefix(out, want) || (wrong > 0) != strings.HasPrefix(want, "no") {
			t.Errorf("quota %d: %s", quota, out)
		}
	}
}

func TestOtherFamiliesQuotasAreNotMistakenForTheStandardOne(t *testing.T) {
	a := ourAccount(t)
	for kind, want := range map[string]string{"g5g.xlarge": "?  ", "inf2.xlarge": "?  ", "hpc7g.4xlarge": "?  ", "im4gn.large": "ok ", "c7g.large": "ok "} {
		out, _ := said(t, func(r *report) {
			processors(t.Context(), r, a, settings.Settings{NodeInstanceType: kind, MinNodes: 2, MaxNodes: 4})
		})
		if !strings.HasPrefix(out, want) {
			t.Errorf("%s: %s", kind, out)
		}
	}
}

func TestARollOutAddsATenthAndAtLeastOne(t *testing.T) {
	for n, want := range map[int]int{1: 2, 4: 5, 10: 11, 11: 13, 20: 22, 200: 220} {
		if got := withRollout(n); got != want {
			t.Errorf("%d nodes: %d, want %d", n, got, want)
		}
	}
}

func TestConcurrencyAtWhatIsEnoughAndOneBelow(t *testing.T) {
	const nobody = "http://127.0.0.1:1" // nothing but Lambda is asked
	for n, want := range map[int]string{busyConcurrency: "ok ", busyConcurrency - 1: "?  ", 1: "?  ", 0: "no "} {
		a := accountWith(t, nobody, account(64, n))
		out, _ := said(t, func(r *report) { concurrency(t.Context(), r, a) })
		if !strings.HasPrefix(out, want) || !strings.Contains(out, "Lambda concurrency") {
			t.Errorf("%d: %s", n, out)
		}
	}
	a := accountWith(t, nobody, quotas{concurrency: `{}`})
	if out, wrong := said(t, func(r *report) { concurrency(t.Context(), r, a) }); wrong != 1 || !strings.Contains(out, "no limit in the answer") {
		t.Errorf("an answer without a limit: %s", out)
	}
}

// moto's account begins with one VPC and may have five.
func TestTheLastVPCIsTakenOnce(t *testing.T) {
	a := ourAccount(t)
	add := func() {
		if err := a.Ask(t.Context(), "ec2", "CreateVpc", url.Values{"CidrBlock": {"10.9.0.0/16"}}, &struct{}{}); err != nil {
			t.Fatal(err)
		}
	}
	look := func(exists bool) (string, int) {
		return said(t, func(r *report) { network(t.Context(), r, a, settings.Settings{}, exists) })
	}
	for range 3 {
		add()
	}
	if out, wrong := look(false); wrong != 0 || !strings.Contains(out, "4 of 5") {
		t.Errorf("room for one: %s", out)
	}
	add()
	if out, wrong := look(false); wrong != 1 || !strings.Contains(out, "all 5") {
		t.Errorf("no room: %s", out)
	}
	if out, wrong := look(true); wrong != 0 {
		t.Errorf("no room, and the stack has its own: %s", out)
	}
}
