package main

import (
	"fmt"
	"strings"
	"testing"
)

// The page's policy must name the bucket that its uploads go to, by the host name that presigned links have.
func TestThePageMaySendFilesToTheBucketAndNowhereElse(t *testing.T) {
	setting := func(t *testing.T, tm template) string {
		t.Helper()
		_, after, ok := strings.Cut(userData(t, tm), "\nCONNECT_ORIGINS=")
		if !ok {
			t.Fatal("nodes are not told CONNECT_ORIGINS")
		}
		value, _, _ := strings.Cut(after, "\n")
		return value
	}
	everywhere(t, func(t *testing.T, tm template) {
		bucket := tm.one(t, "AWS::S3::Bucket", "TodoFiles")
		want := fmt.Sprintf(`https://${{"Ref":"%s"}}.s3.${{"Ref":"AWS::Region"}}.${{"Ref":"AWS::URLSuffix"}}`, bucket.ID)
		if got := setting(t, tm); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}, "dev", "prod", "alb", "existing")
	if got := setting(t, synth(t, "serverless")); got != "" { // without the todo application
		t.Errorf("the edge alone connects to %s", got)
	}
}
