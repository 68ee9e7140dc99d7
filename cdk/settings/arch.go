package settings

import (
	"fmt"
	"regexp"
	"strings"
)

// Arch is a processor architecture in Go's words, which name the builds in dist.
type Arch string

// The architectures that nodes are built for.
const (
	ARM64 Arch = "arm64"
	AMD64 Arch = "amd64"
)

// instanceType: family letters, generation, attribute letters (a 'g' among them is Graviton), size.
var instanceType = regexp.MustCompile(`^([a-z]+)(\d+)([a-z0-9]*)(-[a-z0-9]+)?\.(nano|micro|small|medium|large|\d*xlarge|metal(-\d+xl)?)$`)

// ArchOf tells which build runs on an EC2 instance type. Types of other systems (mac) are refused.
func ArchOf(instance string) (Arch, error) {
	m := instanceType.FindStringSubmatch(instance)
	switch {
	case m == nil:
		return "", fmt.Errorf("not an EC2 instance type such as c7g.large or c7i.large")
	case m[1] == "mac":
		return "", fmt.Errorf("there is no build for macOS; %s (Graviton) or %s (x86)", ARM64, AMD64)
	case m[1] == "a", strings.Contains(m[3], "g"):
		return ARM64, nil
	}
	return AMD64, nil
}
