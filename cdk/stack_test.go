package main

import "testing"

func TestSynth(t *testing.T) {
	for name := range variants {
		t.Run(name, func(t *testing.T) { t.Log(len(synth(t, name).Resources)) })
	}
}
