package compose

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// service is what the test reads of one in compose.yaml, with its anchors merged.
type service struct {
	Image, User string
	ReadOnly    bool     `json:"read_only"`
	CapDrop     []string `json:"cap_drop"`
	CapAdd      []string `json:"cap_add"`
	SecurityOpt []string `json:"security_opt"`
	Restart     string
	Ports       []string
	Volumes     []string
	Profiles    []string
	Networks    any
	MemLimit    string         `json:"mem_limit"`
	Healthcheck map[string]any `json:"healthcheck"`
	Privileged  bool
	Command     any
	Logging     map[string]any
}

func readCompose(t *testing.T) map[string]service {
	t.Helper()
	// The yaml module comes with Debian's docker-compose, which is written in Python.
	cmd := exec.Command("/usr/bin/python3", "-c", "import json,sys,yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)", filepath.Join(root, "compose.yaml"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("read compose.yaml: %v; make setup installs docker-compose on Debian", err)
	}
	var file struct{ Services map[string]service }
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Services) < 12 {
		t.Fatalf("%d services", len(file.Services))
	}
	return file.Services
}

func TestConfigIsValid(t *testing.T) {
	for _, args := range [][]string{{"config", "-q"}, {"--profile", "docker", "--profile", "monitoring", "config", "-q"}} {
		cmd := exec.Command("docker-compose", append([]string{"-f", filepath.Join(root, "compose.yaml")}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("docker-compose %v: %v\n%s", args, err, out)
		}
	}
}

// inside has the images whose own user is not root, so that no user is set: said by their documentation.
var inside = []string{"nginxinc/nginx-unprivileged", "prom/prometheus", "grafana/grafana", "tideline/"}

func TestServicesAreConfined(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:[A-Za-z0-9][A-Za-z0-9._-]*$`)
	for name, s := range readCompose(t) {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged || s.Restart == "" || s.Logging == nil {
			t.Errorf("%s is not confined: %+v", name, s)
		}
		if !pinned.MatchString(s.Image) || strings.HasSuffix(s.Image, ":latest") {
			t.Errorf("%s: image %q has no version", name, s.Image)
		}
		// One service is root, without a network, to give a volume away.
		if name == "dynamodb-volume" {
			if !slices.Equal(s.CapAdd, []string{"CHOWN"}) {
				t.Errorf("%s: %+v", name, s)
			}
			continue
		}
		if len(s.CapAdd) > 0 || s.MemLimit == "" || s.User == "" && !slices.ContainsFunc(inside, func(i string) bool { return strings.HasPrefix(s.Image, i) }) {
			t.Errorf("%s: user %q, capabilities %v, memory %q", name, s.User, s.CapAdd, s.MemLimit)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") || strings.HasSuffix(p, ":9000") {
				t.Errorf("%s publishes %s", name, p)
			}
		}
		if len(s.Ports) > 0 && name != "nginx" && !slices.Equal(s.Profiles, []string{"monitoring"}) {
			t.Errorf("%s publishes %v", name, s.Ports)
		}
		for _, v := range s.Volumes {
			if strings.Contains(v, "docker.sock") && (name != "docker" || !strings.HasSuffix(v, ":ro") || !slices.Equal(s.Profiles, []string{"docker"})) {
				t.Errorf("%s mounts %s", name, v)
			}
		}
	}
}

// Every mounted file is there, and the dashboard draws only metrics that there are.
func TestMountedFiles(t *testing.T) {
	files := 0
	for name, s := range readCompose(t) {
		for _, v := range s.Volumes {
			if path, _, _ := strings.Cut(v, ":"); strings.HasPrefix(path, "./") {
				files++
				if _, err := os.Stat(filepath.Join(root, path)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	if files < 5 {
		t.Errorf("%d files are mounted", files)
	}
	raw, err := os.ReadFile(filepath.Join(root, "local/compose/grafana/dashboards/tideline.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadFile(filepath.Join(root, "shared/metric/metric.go"))
	if err != nil {
		t.Fatal(err)
	}
	metric := regexp.MustCompile(`\b(websocket|bus|streams?|tasks|publish|request|duplicates|http|app)_[a-z_]+`)
	drawn := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, m := range metric.FindAllString(target.Expr, -1) {
				drawn++
				m = strings.TrimSuffix(strings.TrimSuffix(m, "_bucket"), "_count")
				if !strings.Contains(string(names), `"`+m+`"`) {
					t.Errorf("panel %q draws %s", p.Title, m)
				}
			}
		}
	}
	if drawn < 15 {
		t.Errorf("the dashboard draws %d metrics", drawn)
	}
}
