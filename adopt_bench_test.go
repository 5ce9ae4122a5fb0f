// How long it takes to bring a running machine's disk into Ceph.

package vmdisk

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// BenchmarkAdopt compares the adoption of a running machine's disk of 2 GiB, 768 MiB of it
// data, with virsh blockcopy --pivot of the same into an image that rbd makes, which
// leaves the definition as it is. It may take as long.
func BenchmarkAdopt(b *testing.B) {
	const size = 2 << 30
	h, id := open(b, 0), uuid.NewString()
	file := filepath.Join(b.TempDir(), "disk")
	must(b, writeSparse(file, size, 768<<20))
	cluster := mustCluster(b, h)
	s, _, err := h.SetSecret(b.Context())
	must(b, err)
	n := disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(id)}
	with, err := h.rbdDisk(b.Context(), cluster, n, s.UUID)
	must(b, err)
	with.Target = "vda"
	text, err := with.XML()
	must(b, err)
	xml := filepath.Join(b.TempDir(), "rbd.xml")
	must(b, os.WriteFile(xml, []byte(text), 0o600))
	vm := ""
	start := func() {
		vm = localVM(b, id, "raw:"+file).VM
		virsh(b, 0, "start", vm)
	}
	start()
	virshCopies := func() error {
		out, err := command("rbd", "--id", "cinder", "create", "--size", strconv.Itoa(size)+"B", n.String()).CombinedOutput()
		if err == nil {
			out, err = exec.Command("virsh", "-q", "-c", testLab.Hosts[0].URI, "blockcopy", vm, "vda", "--xml", xml,
				"--reuse-external", "--transient-job", "--wait", "--pivot").CombinedOutput()
		}
		if err != nil {
			b.Logf("%s", out)
		}
		return err
	}
	adopts := func() error {
		_, err := h.Adopt(b.Context(), vm, AdoptOptions{})
		return err
	}
	pair(b, adopts, virshCopies, func() error {
		ctx := context.WithoutCancel(b.Context())
		err := errors.Join(domain.Destroy(ctx, connected(b, 0), id), domain.Undefine(ctx, connected(b, 0), id))
		err = errors.Join(err, gone(cluster.ForgetMachine(ctx, disk.VMPool, id)), gone(cluster.RemoveDisk(ctx, n)))
		start()
		return err
	})
}
