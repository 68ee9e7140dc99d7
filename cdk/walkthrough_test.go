package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tideline/shared/channel"
)

// Code on a page that nobody compiles is wrong within a month. The two files of the walk-through are laid over the tree, as its reader would write them.
func TestTheWalkThroughCompiles(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(go|json)\n(.*?)```").FindAllStringSubmatch(readFile(t, root, "docs", "your-app.md"), -1)
	files := map[string]string{"package orders": "functions/orders/orders.go", "package main": "functions/orders/bootstrap/main.go"}
	overlay := map[string]string{}
	tables := 0
	for _, b := range blocks {
		if b[1] == "json" {
			tables++
			if _, err := channel.Parse([]byte(b[2])); err != nil {
				t.Errorf("the namespaces of the walk-through: %v", err)
			}
		}
		for clause, path := range files {
			if strings.Contains(b[2], "\n"+clause+"\n") {
				file := filepath.Join(t.TempDir(), filepath.Base(path))
				if err := os.WriteFile(file, []byte(b[2]), 0o644); err != nil {
					t.Fatal(err)
				}
				overlay[filepath.Join(root, path)] = file
			}
		}
	}
	if len(overlay) != 2 || tables != 1 {
		t.Fatalf("found %d files and %d namespace tables", len(overlay), tables)
	}
	raw, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(list, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "-o", filepath.Join(t.TempDir(), "bootstrap"), "./functions/orders/bootstrap")
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
