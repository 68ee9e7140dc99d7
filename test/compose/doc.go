// Package compose tests what compose.yaml ships: its nginx configuration in front of real processes, its images on a real engine, and the file itself.
package compose
