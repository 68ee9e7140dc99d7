package edge

import (
	"fmt"
	"os"
	"path/filepath"
)

// Builds finds the binaries that are deployed. Its paths are checked by Check, before the CDK reports one of them by its hash.
type Builds struct {
	// Node is the node's binary for the architecture of Nodes.InstanceType.
	Node string
	// Functions is the folder that holds <name>/bootstrap for each function.
	Functions string
	// Assets is the folder with the page's hashed files; empty serves them from the nodes.
	Assets string
	// Work is a folder for what is put together at synthesis, such as the node's archive. It may go afterwards.
	Work string
}

// Dist is the layout of `make build`: node-<arch>, functions/arm64/<name>/bootstrap.
func Dist(dir, arch, assets, work string) Builds {
	return Builds{Node: filepath.Join(dir, "node-"+arch), Functions: filepath.Join(dir, "functions", "arm64"), Assets: assets, Work: work}
}

// Check reports every missing build, with what makes it.
func (b Builds) Check(functions ...string) []error {
	var errs []error
	missing := func(what, path, fix string) {
		errs = append(errs, fmt.Errorf("%s is not built: %s does not exist; %s", what, path, fix))
	}
	if _, err := os.Stat(b.Node); err != nil {
		missing("the node", b.Node, "run scripts/deploy-build.sh")
	}
	for _, name := range functions {
		path := filepath.Join(b.function(name), "bootstrap")
		if _, err := os.Stat(path); err != nil {
			missing("function "+name, path, "run scripts/deploy-build.sh")
		}
	}
	if b.Assets != "" {
		if entries, err := os.ReadDir(b.Assets); err != nil || len(entries) == 0 {
			missing("the page", b.Assets, "run make page")
		}
	}
	return errs
}

func (b Builds) function(name string) string { return filepath.Join(b.Functions, name) }
