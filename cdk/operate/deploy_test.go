package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// deployScript runs scripts/deploy.sh with stand-ins for the commands that it calls, which write down how, and answers what they wrote and whether it succeeded.
// The deployment itself ends with rc; whoever may not ask or say anything is denied.
func deployScript(t *testing.T, rc, denied string, args ...string) (calls []string, ok bool) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "scripts"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"deploy.sh", "deploy-env.sh"} {
		raw, err := os.ReadFile(filepath.Join("..", "..", "scripts", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "scripts", name), raw, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, body := range map[string]string{
		"node": `echo v22.1.0`,
		// The deployment lasts until whoever says that it is going on has begun to.
		"npx": `echo "npx $*" >> "$LOG"
case "$*" in *" deploy "*) n=0; until grep -q '^deploying begins' "$LOG" || [ $n = 100 ]; do n=$((n + 1)); sleep 0.1; done; echo "deployed" >> "$LOG"; exit ` + rc + ` ;; esac`,
		"go": `echo "go $*" >> "$LOG"
case "$*" in
*"operate doctor"*) echo "ok  bootstrap              none yet; make deploy does it" ;;
*"operate mark"*) ` + denied + ` echo "2026-11-22T18:30:00Z v1,2000-01-01T00:00:00Z none" ;;
"build -o"*)
	printf '#!/bin/sh\necho "deploying begins: $*" >> "$LOG"\n` + denied + `\ntrap "echo deploying ends >> \\"$LOG\\"; exit 0" TERM\nwhile :; do sleep 0.05; done\n' > "$3"
	chmod +x "$3" ;;
esac`,
	} {
		if err := os.WriteFile(filepath.Join(root, "bin", name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), "sh", append([]string{filepath.Join(root, "scripts", "deploy.sh")}, args...)...)
	log := filepath.Join(root, "log")
	c.Env = []string{"PATH=" + filepath.Join(root, "bin") + ":" + os.Getenv("PATH"), "LOG=" + log, "STAGE=x", "TMPDIR=" + root}
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	raw, _ := os.ReadFile(log)
	if left, _ := filepath.Glob(filepath.Join(root, "tmp.*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	return strings.Split(strings.TrimSpace(string(raw)), "\n"), err == nil
}

func inOrder(t *testing.T, calls []string, want ...string) {
	t.Helper()
	i := 0
	for _, call := range calls {
		if i < len(want) && strings.HasPrefix(call, want[i]) {
			i++
		}
	}
	if i < len(want) {
		t.Errorf("no %q, or too early, in\n%s", want[i], strings.Join(calls, "\n"))
	}
}

func TestADeploymentIsMarkedAndThePagerQuietAsLongAsItGoesOn(t *testing.T) {
	calls, ok := deployScript(t, "0", "", "-c", "minNodes=3")
	if !ok {
		t.Error("it failed")
	}
	inOrder(t, calls, "go run ./cdk/operate doctor -c stage=x -c minNodes=3", "npx --yes aws-cdk@2.1148.1 bootstrap", "go run ./cdk/operate mark -c stage=x -c minNodes=3",
		"deploying begins: deploying -c stage=x", "deployed", "deploying ends", "go run ./cdk/operate verify -c stage=x", "go run ./cdk/operate outputs")
	all := strings.Join(calls, "\n")
	if want := "--parameters tideline-x:Deployments=2026-11-22T18:30:00Z v1,2000-01-01T00:00:00Z none -c stage=x -c minNodes=3"; !strings.Contains(all, want) {
		t.Errorf("no %q in\n%s", want, all)
	}
}

// Otherwise nobody would be paged for an hour after a deployment that has failed.
func TestADeploymentThatFailsDoesNotKeepThePagerQuiet(t *testing.T) {
	calls, ok := deployScript(t, "1", "")
	if ok || strings.Contains(strings.Join(calls, "\n"), "operate verify") {
		t.Error("it went on")
	}
	inOrder(t, calls, "deploying begins", "deployed", "deploying ends")
}

// Marks and the quiet pager are conveniences: a deployer without the right to them deploys all the same.
func TestADeployerWhoMayNeitherAskNorSayDeploys(t *testing.T) {
	calls, ok := deployScript(t, "0", "exit 1;")
	if !ok {
		t.Error("it failed")
	}
	inOrder(t, calls, "deploying begins", "deployed", "go run ./cdk/operate verify")
	if strings.Contains(strings.Join(calls, "\n"), "--parameters") {
		t.Errorf("marks that nobody knows were set: %v", calls)
	}
}

func TestTheStageIsNamedInOneWayOnly(t *testing.T) {
	if calls, ok := deployScript(t, "0", "", "-c", "stage=y"); ok || calls[0] != "" {
		t.Errorf("it went on: %v", calls)
	}
}
