// Makes an eStargz blob of the tar that the first argument names. The others are the level, the size of a chunk and the
// least size of a gzip member, 0 for the defaults of the two sizes.
package main

import (
	"io"
	"os"
	"strconv"

	"github.com/containerd/stargz-snapshotter/estargz"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func number(index int) int {
	value, err := strconv.Atoi(os.Args[index])
	check(err)
	return value
}

func main() {
	file, err := os.Open(os.Args[1])
	check(err)
	status, err := file.Stat()
	check(err)
	blob, err := estargz.Build(
		io.NewSectionReader(file, 0, status.Size()),
		estargz.WithCompressionLevel(number(2)),
		estargz.WithChunkSize(number(3)),
		estargz.WithMinChunkSize(number(4)),
	)
	check(err)
	_, err = io.Copy(os.Stdout, blob)
	check(err)
	check(blob.Close())
}
