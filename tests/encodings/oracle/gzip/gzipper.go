// Compresses standard input with the compress/gzip of the Go toolchain that built it, at the level of the first argument:
// 1 as crane does, -1 as BuildKit, containerd and Docker do.
package main

import (
	"compress/gzip"
	"io"
	"os"
	"strconv"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	level, err := strconv.Atoi(os.Args[1])
	check(err)
	w, err := gzip.NewWriterLevel(os.Stdout, level)
	check(err)
	_, err = io.Copy(w, os.Stdin)
	check(err)
	check(w.Close())
}
