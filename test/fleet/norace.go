//go:build !race

package fleet

// Race reports whether the test, and so what it builds, has the race detector: everything is several times slower.
const Race = false
