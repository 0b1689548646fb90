// An oracle: compresses with the compress/flate of the Go toolchain that built it.
//
// Standard input is a sequence of requests: five little-endian 32-bit numbers (level, block size, size of a write,
// bytes between flushes, size of the data; 0 for none) and the data. Each answer is a size and the raw DEFLATE stream.
package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"os"
)

type request struct {
	Level                          int32
	Block, Write, FlushEvery, Size uint32
}

type flusher interface {
	io.WriteCloser
	Flush() error
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func feed(w flusher, data []byte, r request) {
	flushed := 0
	for at := 0; at < len(data); {
		end := len(data)
		if r.Write != 0 {
			end = min(end, at+int(r.Write))
		}
		if r.FlushEvery != 0 {
			end = min(end, flushed+int(r.FlushEvery))
		}
		_, err := w.Write(data[at:end])
		check(err)
		at = end
		if r.FlushEvery != 0 && at == flushed+int(r.FlushEvery) {
			check(w.Flush())
			flushed = at
		}
	}
	check(w.Close())
}

func serve(compress func(out *bytes.Buffer, data []byte, r request)) {
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriterSize(os.Stdout, 1<<20)
	for {
		var r request
		if err := binary.Read(in, binary.LittleEndian, &r); err == io.EOF {
			break
		} else {
			check(err)
		}
		data := make([]byte, r.Size)
		_, err := io.ReadFull(in, data)
		check(err)
		var result bytes.Buffer
		compress(&result, data, r)
		check(binary.Write(out, binary.LittleEndian, uint32(result.Len())))
		_, err = out.Write(result.Bytes())
		check(err)
		check(out.Flush())
	}
}

func main() {
	serve(func(out *bytes.Buffer, data []byte, r request) {
		w, err := flate.NewWriter(out, int(r.Level))
		check(err)
		feed(w, data, r)
	})
}
