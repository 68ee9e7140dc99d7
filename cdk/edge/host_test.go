package edge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tideline/shared/limit"
)

// host is a root folder in which the user data runs as on an instance: AWS's metadata, its command line and the system's own commands
// are stand-ins that write down how they were called; everything else is real.
type host struct {
	t        *testing.T
	root     string
	bin      string // the stand-ins
	archive  string // what the stand-in for S3 serves
	metadata *httptest.Server
	data     userData
}

func newHost(t *testing.T) *host {
	h := &host{t: t, root: t.TempDir(), bin: t.TempDir()}
	binary := filepath.Join(t.TempDir(), "node")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path, sum, err := writeArchive(binary, "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h.archive = path
	h.data = userData{Region: "eu-central-1", Bucket: "assets", Key: "abc.gz", SHA256: sum, LogGroup: "logs-of-nodes",
		Environment: []variable{{"PORT", "8000"}, {"REDIS_URL", "rediss://bus:6379"}}}
	h.metadata = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			_, _ = io.WriteString(w, "session")
		case r.Header.Get("X-aws-ec2-metadata-token") != "session":
			w.WriteHeader(http.StatusUnauthorized) // IMDSv2 only
		case r.URL.Path == "/latest/meta-data/instance-id":
			_, _ = io.WriteString(w, "i-0123")
		case r.URL.Path == "/latest/meta-data/placement/availability-zone":
			_, _ = io.WriteString(w, "eu-central-1b")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(h.metadata.Close)
	h.command("aws", `cp "$ARCHIVE" "${@: -1}"`) // s3 cp … URL DESTINATION
	h.command("dnf", `mkdir -p "$TIDELINE_ROOT/opt/aws/amazon-cloudwatch-agent/bin"
printf '#!/bin/bash\necho "agent $*" >> "%s"\n' "$CALLS" > "$TIDELINE_ROOT/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"
chmod +x "$TIDELINE_ROOT/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"`)
	h.command("id", "exit 1") // no such user yet
	for _, name := range []string{"useradd", "systemctl", "sysctl"} {
		h.command(name, "")
	}
	h.command("sleep", "") // the waits between attempts
	return h
}

// command makes a stand-in: a script that writes down its call and does body.
func (h *host) command(name, body string) {
	h.t.Helper()
	script := "#!/bin/bash\necho \"" + name + " $*\" >> \"$CALLS\"\n" + body + "\n"
	if err := os.WriteFile(filepath.Join(h.bin, name), []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// run the user data as cloud-init does, and answer its output and the calls of the stand-ins.
func (h *host) run() (output, calls string, err error) {
	h.t.Helper()
	script, err := h.data.render()
	if err != nil {
		h.t.Fatal(err)
	}
	file := filepath.Join(h.bin, "user-data")
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
	log := filepath.Join(h.bin, "calls")
	_ = os.Remove(log)
	c := exec.CommandContext(h.t.Context(), file)
	c.Env = []string{"PATH=" + h.bin + ":" + os.Getenv("PATH"), "TIDELINE_ROOT=" + h.root, "TIDELINE_METADATA=" + h.metadata.URL,
		"CALLS=" + log, "ARCHIVE=" + h.archive, "TMPDIR=" + h.t.TempDir()}
	out, err := c.CombinedOutput()
	raw, _ := os.ReadFile(log)
	return string(out), string(raw), err
}

func (h *host) file(path string) string {
	h.t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.root, path))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(raw)
}

func TestUserDataInstallsAndStartsANode(t *testing.T) {
	h := newHost(t)
	out, calls, err := h.run()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, calls)
	}
	env := h.file("etc/tideline/node.env")
	for _, line := range []string{"PORT=8000", "REDIS_URL=rediss://bus:6379", "NODE_ID=i-0123", "ZONE=eu-central-1b"} {
		if !strings.Contains(env, line+"\n") {
			t.Errorf("no %s in %q", line, env)
		}
	}
	if !regexp.MustCompile(`(?m)^GOMEMLIMIT=[1-9]\d+KiB$`).MatchString(env) {
		t.Errorf("no memory limit in %q", env)
	}
	for path, mode := range map[string]os.FileMode{"opt/tideline/tideline-node": 0o755, "etc/tideline/node.env": 0o644, "var/log/tideline": 0o750,
		"etc/systemd/system/tideline-node.service": 0o644, "etc/sysctl.d/90-tideline.conf": 0o644, "etc/logrotate.d/tideline-node": 0o644} {
		info, err := os.Stat(filepath.Join(h.root, path))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), mode)
		}
	}
	if agent := h.file("opt/aws/amazon-cloudwatch-agent/etc/tideline.json"); strings.Count(agent, `"log_group_name": "logs-of-nodes"`) != 2 {
		t.Errorf("agent: %s", agent)
	}
	order := []string{"aws s3 cp --only-show-errors --region eu-central-1 s3://assets/abc.gz ", "useradd --system", "sysctl", "systemctl daemon-reload",
		"systemctl enable --now tideline-node.service", "dnf install --quiet --assumeyes amazon-cloudwatch-agent", "agent -a fetch-config -m ec2 -s"}
	rest := calls
	for _, call := range order {
		_, after, ok := strings.Cut(rest, call)
		if !ok {
			t.Fatalf("%q is missing, or too early, in\n%s", call, calls)
		}
		rest = after
	}
}

func (h *host) withAPIKeys(body string) {
	h.data.APIKeys = "arn:aws:secretsmanager:eu-central-1:1:secret:keys"
	h.data.Environment = append(h.data.Environment, variable{"API_KEYS_FILE", apiKeysFile})
	h.command("chown", "")
	h.command("aws", `if [ "$1" = secretsmanager ]; then
`+body+`
else cp "$ARCHIVE" "${@: -1}"; fi`)
}

func TestUserDataFetchesTheServerAPIsKeysBeforeTheNodeStarts(t *testing.T) {
	h := newHost(t)
	h.withAPIKeys(`echo new-key,old-key`)
	out, calls, err := h.run()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, calls)
	}
	if keys := h.file(apiKeysFile); keys != "new-key,old-key\n" {
		t.Errorf("keys %q", keys)
	}
	if info, err := os.Stat(filepath.Join(h.root, apiKeysFile)); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v: others on the instance could read it", info.Mode(), err)
	}
	before, after, _ := strings.Cut(calls, "enable --now tideline-node.service")
	for _, call := range []string{"aws secretsmanager get-secret-value --region eu-central-1 --secret-id arn:aws:secretsmanager:eu-central-1:1:secret:keys --query SecretString --output text", "chown root:tideline "} {
		if !strings.Contains(before, call) {
			t.Errorf("no %q before the start in\n%s", call, calls)
		}
	}
	if !strings.Contains(after, "enable --now tideline-api-keys.timer") {
		t.Error("nobody would fetch rotated keys")
	}
	for _, secret := range []string{"new-key", "old-key"} {
		if strings.Contains(out+calls, secret) {
			t.Errorf("%s is in a log", secret)
		}
	}
}

// A node that answers no call of the API would refuse its share of them; the group tries another instance.
func TestANodeWithoutTheKeysThatItShouldHaveDoesNotStart(t *testing.T) {
	h := newHost(t)
	h.withAPIKeys(`exit 1`)
	out, calls, err := h.run()
	if err == nil || strings.Contains(calls, "enable --now tideline-node") || strings.Count(calls, "aws secretsmanager") != 6 {
		t.Errorf("%v\n%s\n%s", err, out, calls)
	}
}

func TestKeysThatCanNotBeFetchedAgainStay(t *testing.T) {
	h := newHost(t)
	h.withAPIKeys(`echo first`)
	if out, _, err := h.run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fetch := func() error {
		c := exec.CommandContext(t.Context(), "bash", filepath.Join(h.root, "opt/tideline/api-keys.sh"))
		c.Env = []string{"PATH=" + h.bin + ":" + os.Getenv("PATH"), "root=" + h.root, "CALLS=" + filepath.Join(h.bin, "calls"), "ARCHIVE=" + h.archive}
		out, err := c.CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	for _, body := range []string{"exit 1", "true"} { // refused; an empty answer
		h.withAPIKeys(body)
		if err := fetch(); err == nil || h.file(apiKeysFile) != "first\n" {
			t.Errorf("%s: %v, keys %q", body, err, h.file(apiKeysFile))
		}
	}
	h.withAPIKeys("echo second,first")
	if err := fetch(); err != nil || h.file(apiKeysFile) != "second,first\n" {
		t.Errorf("%v, keys %q", err, h.file(apiKeysFile))
	}
	if left, _ := filepath.Glob(filepath.Join(h.root, apiKeysFile+".*")); len(left) != 0 && strings.Join(left, "") != filepath.Join(h.root, apiKeysFile+".env") {
		t.Errorf("left behind: %v", left)
	}
}

func TestUserDataMayRunTwice(t *testing.T) {
	h := newHost(t)
	for range 2 {
		if out, calls, err := h.run(); err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, calls)
		}
		h.command("id", "echo 990") // the user exists now
	}
	if env := h.file("etc/tideline/node.env"); strings.Count(env, "NODE_ID=") != 1 {
		t.Errorf("settings are there twice: %q", env)
	}
}

func TestUserDataRefusesAnotherArchive(t *testing.T) {
	h := newHost(t)
	h.data.SHA256 = strings.Repeat("0", 64)
	out, calls, err := h.run()
	if err == nil || !strings.Contains(out, "FAILED") {
		t.Errorf("%v\n%s", err, out)
	}
	if strings.Contains(calls, "systemctl") {
		t.Errorf("something was started: %s", calls)
	}
	if _, err := os.Stat(filepath.Join(h.root, "opt")); err == nil {
		t.Error("something was installed")
	}
}

func TestUserDataTriesTheDownloadAgain(t *testing.T) {
	h := newHost(t)
	h.command("aws", `[ "$(grep -c '^aws' "$CALLS")" -lt 3 ] && exit 1
cp "$ARCHIVE" "${@: -1}"`)
	if out, _, err := h.run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.command("aws", "exit 1")
	out, calls, err := h.run()
	if err == nil || strings.Count(calls, "aws s3 cp") != 6 {
		t.Errorf("%v after %d attempts\n%s", err, strings.Count(calls, "aws s3 cp"), out)
	}
}

func TestANodeStartsWithoutTheLogAgent(t *testing.T) {
	h := newHost(t)
	h.command("dnf", "exit 1")
	out, calls, err := h.run()
	if err != nil || !strings.Contains(calls, "enable --now tideline-node.service") || !strings.Contains(out, "logs stay in /var/log/tideline") {
		t.Errorf("%v\n%s\n%s", err, out, calls)
	}
}

// systemd's own tools judge the unit, as it is installed.
func TestTheUnitIsValidAndHardened(t *testing.T) {
	h := newHost(t)
	h.withAPIKeys("echo key")
	if out, _, err := h.run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	unit := h.file("etc/systemd/system/tideline-node.service")
	if want := fmt.Sprintf("TimeoutStopSec=%.0f\n", limit.StopTimeout.Seconds()); !strings.Contains(unit, want) {
		t.Errorf("no %s in the unit", want)
	}
	// With verify the executables and the user database of the root count.
	for path, content := range map[string]string{"etc/passwd": "root:x:0:0::/:/bin/sh\ntideline:x:990:990::/:/bin/sh\n", "etc/group": "tideline:x:990:\n"} {
		if err := os.WriteFile(filepath.Join(h.root, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	copyUnits(t, h.root)
	for _, args := range [][]string{
		{"verify", "--recursive-errors=no", "--man=no", "tideline-node.service", "tideline-api-keys.service", "tideline-api-keys.timer"},
		// Exposure from 0 (none) to 100; most services of a distribution have more than 90.
		{"security", "--offline=true", "--threshold=15", "--no-pager", "tideline-node.service"},
		{"security", "--offline=true", "--threshold=35", "--no-pager", "tideline-api-keys.service"}, // root, for one file
	} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"--root=" + h.root}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Log(lines[len(lines)-1])
		if args[0] == "verify" && len(strings.TrimSpace(string(out))) > 0 {
			t.Errorf("verify: %s", out)
		}
	}
}

// copyUnits gives the root the targets that every unit depends on.
func copyUnits(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, "usr/lib/systemd/system")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"basic.target", "sysinit.target", "shutdown.target", "network-online.target", "network.target", "multi-user.target", "sockets.target",
		"timers.target", "paths.target", "slices.target", "system.slice", "-.slice", "local-fs.target", "swap.target", "umount.target", "tmp.mount", "-.mount"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("[Unit]\nDescription=stand-in\nDefaultDependencies=no\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheSameBinaryGivesTheSameArchive(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "node")
	if err := os.WriteFile(binary, []byte("node"), 0o755); err != nil {
		t.Fatal(err)
	}
	sums := map[string]bool{}
	for range 2 {
		path, sum, err := writeArchive(binary, "", t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(path, sum[:16]) {
			t.Errorf("archive %s of sum %s", path, sum)
		}
		sums[sum] = true
	}
	if len(sums) != 1 {
		t.Errorf("sums %v", sums)
	}
}

func TestAMissingBuildIsReportedWithWhatMakesIt(t *testing.T) {
	errs := Dist(t.TempDir(), "arm64", t.TempDir(), t.TempDir()).Check("session", "todos")
	if len(errs) != 4 {
		t.Fatalf("%v, want the node, two functions and the page", errs)
	}
	for _, err := range errs {
		if !strings.Contains(err.Error(), "run ") {
			t.Errorf("%v does not say what to run", err)
		}
	}
}
