// Command cdk declares everything that Tideline runs on AWS: one stack, tideline-<stage>.
//
// The CDK's command line starts it; settings come by -c name=value and are listed in docs/deployment.md. It needs no credentials and looks
// nothing up. A mistake in the settings, or a build that is missing, ends it before anything is synthesised.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"tideline/cdk/edge"
	"tideline/cdk/settings"
	"tideline/shared/channel"
)

func main() {
	defer jsii.Close()
	if err := run(os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "nothing was deployed:")
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "  "+line)
		}
		jsii.Close()
		os.Exit(1)
	}
}

func run(getenv func(string) string) error {
	context := map[string]any{}
	if raw := getenv("CDK_CONTEXT_JSON"); raw != "" {
		if err := json.Unmarshal([]byte(raw), &context); err != nil {
			return fmt.Errorf("read CDK_CONTEXT_JSON: %w", err)
		}
	}
	region := getenv("CDK_DEFAULT_REGION")
	s, err := settings.Parse(context, settings.Region(region))
	if err != nil {
		return err
	}
	if s.Version == "" {
		s.Version = describe()
	}
	work, err := os.MkdirTemp("", "tideline-cdk-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(work)
	if s.Channels != "" {
		if _, err := channel.Load(s.Channels); err != nil {
			return fmt.Errorf("channels=%s: %w", s.Channels, err)
		}
	}
	builds := edge.Dist("dist", string(s.NodeArch), filepath.Join("node", "page", "dist", "assets"), work)
	if err := errors.Join(builds.Check(functionsOf(s)...)...); err != nil {
		return err
	}
	app := awscdk.NewApp(nil)
	declare(app, s, builds, region)
	app.Synth(nil)
	return nil
}

// describe names the version by the repository's state; a folder without one is "unversioned".
func describe() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		return "unversioned"
	}
	return strings.TrimSpace(string(out))
}
