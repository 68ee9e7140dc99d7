// Command gen writes the OpenAPI document of all functions into the file that it is given.
package main

import (
	"fmt"
	"os"

	"tideline/functions/openapi/gen/document"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	b, err := document.Make()
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
