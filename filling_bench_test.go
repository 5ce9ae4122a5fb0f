// How long it takes until a guest speaks whose disk is 10 GiB on a web server.

package vmdisk

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// BenchmarkBootOrigin compares a guest that boots from a qcow2 of 10 GiB, 512 MiB of it
// random data, on a web server, with one that boots from a clone of the same, imported:
// until the guest's first line. It may take 1.5 times as long.
func BenchmarkBootOrigin(b *testing.B) {
	dir, h := b.TempDir(), open(b, 0)
	raw := filepath.Join(dir, "big.raw")
	must(b, writeSparse(raw, 10<<30, 512<<20))
	guest, err := os.ReadFile(testLab.Guest)
	must(b, err)
	f, err := os.OpenFile(raw, os.O_WRONLY, 0)
	must(b, err)
	_, err = f.WriteAt(guest, 0)
	must(b, err)
	must(b, f.Close())
	qcow2 := filepath.Join(dir, "big.qcow2")
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	must(b, os.Remove(raw))
	_, err = h.ImportImage(b.Context(), qcow2, ImportOptions{ID: "big"})
	must(b, err)
	b.Cleanup(func() { must(b, h.RemoveImage(context.WithoutCancel(b.Context()), "big")) })
	w, last := serve(b, dir), ""
	boot := func(image string) func() error {
		return func() error {
			vm, err := h.Boot(b.Context(), name(b), BootOptions{Image: image, Memory: guestMemory})
			if err == nil {
				last = vm.UUID
				_, err = consoleOf(vm.Name)[0].Wait(waiting(b), regexp.MustCompile(`.+`))
			}
			return err
		}
	}
	pair(b, boot(w.url("big.qcow2")), boot("big"), func() error {
		_, err := h.Remove(b.Context(), last)
		return err
	})
}
