// Command gen writes the OpenAPI document of all functions, and the page to read it in, into the folder that it is given.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tideline/functions/openapi/gen/document"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(folder string) error {
	b, err := document.Make()
	if err != nil {
		return err
	}
	page, err := document.Page(b)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(folder, "openapi.json"), b, 0o644), os.WriteFile(filepath.Join(folder, "docs.html"), page, 0o644))
}
