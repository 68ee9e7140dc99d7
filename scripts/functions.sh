#!/bin/sh
# Builds every Lambda function, for arm64 and amd64: dist/functions/<arch>/<name>/bootstrap, and <name>.zip beside the folder.
# With --twice it builds them once more, elsewhere and with an empty build cache, and fails unless every file is the same byte for byte.
set -eu
cd "$(dirname "$0")/.."

build() { # build SOURCE OUT
	for arch in arm64 amd64; do
		for main in functions/*/bootstrap; do
			name=$(basename "$(dirname "$main")")
			out="$2/$arch/$name"
			mkdir -p "$out"
			(cd "$1" && CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOFLAGS=-mod=readonly \
				go build -trimpath -buildvcs=false -tags lambda.norpc -ldflags '-s -w -buildid=' -o "$out/bootstrap" "./$main")
			"$pack" "$out/bootstrap" "$out.zip"
		done
	done
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
pack="$scratch/pack"
go build -o "$pack" ./functions/pack

rm -rf dist/functions
mkdir -p dist/functions
build . "$PWD/dist/functions"

if [ "${1:-}" = --twice ]; then
	mkdir -p "$scratch/copy" "$scratch/again"
	git ls-files -z -- go.mod go.sum functions shared | tar --null -T - -cf - | tar -xf - -C "$scratch/copy"
	GOCACHE="$scratch/cache" build "$scratch/copy" "$scratch/again"
	diff -r dist/functions "$scratch/again"
	echo "both builds are the same"
fi
du -k dist/functions/*/*.zip | awk '{ sub("dist/functions/", "", $2); printf "%-24s %6.1f MB\n", $2, $1 / 1024 }'
