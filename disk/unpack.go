// Decompressing the clusters of a compressed qcow2.

package disk

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// unpacker turns compressed clusters into plain ones, one at a time.
type unpacker interface {
	// unpack fills dst from packed, which may go on after the end of the data.
	unpack(dst, packed []byte) error
	close()
}

func newUnpacker(useZstd bool) unpacker {
	if useZstd {
		// A cluster is at most 2 MiB, and so is the window libzstd takes for it:
		// a frame that wants more is not qemu-img's. One goroutine: the copy has
		// its own parallelism.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			panic(err) // the options are constants
		}
		return &unzstd{d: d}
	}
	return &inflate{d: flate.NewReader(nil)}
}

type inflate struct {
	d   io.ReadCloser
	src bytes.Reader
}

func (u *inflate) unpack(dst, packed []byte) error {
	u.src.Reset(packed)
	if err := u.d.(flate.Resetter).Reset(&u.src, nil); err != nil {
		return err
	}
	_, err := io.ReadFull(u.d, dst)
	return err
}

func (u *inflate) close() { u.d.Close() }

type unzstd struct {
	d   *zstd.Decoder
	src bytes.Reader
}

func (u *unzstd) unpack(dst, packed []byte) error {
	u.src.Reset(packed)
	if err := u.d.Reset(&u.src); err != nil {
		return err
	}
	_, err := io.ReadFull(u.d, dst)
	return err
}

func (u *unzstd) close() { u.d.Close() }
