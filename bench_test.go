// What the workflows cost against what a user would do instead, in pairs that
// alternate, so that both meet the same machine. The figure is the ratio.

package vmdisk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"golang.org/x/sync/errgroup"
	"libvirt.org/go/libvirt"
)

// pair times two ways to do one thing, b.N times each, and reports their medians
// and the ratio of those. Cleaning after each is not timed.
func pair(b *testing.B, ours, theirs, clean func() error) {
	b.Helper()
	var a, t []time.Duration
	timed := func(f func() error) time.Duration {
		begin := time.Now()
		err := f()
		took := time.Since(begin)
		must(b, err)
		must(b, clean())
		return took
	}
	for i := range b.N {
		if i%2 == 0 {
			a = append(a, timed(ours))
			t = append(t, timed(theirs))
		} else {
			t = append(t, timed(theirs))
			a = append(a, timed(ours))
		}
	}
	slices.Sort(a)
	slices.Sort(t)
	mine, other := a[len(a)/2], t[len(t)/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(mine.Microseconds())/1000, "ours-ms")
	b.ReportMetric(float64(other.Microseconds())/1000, "theirs-ms")
	b.ReportMetric(mine.Seconds()/other.Seconds(), "ratio")
}

// BenchmarkBoot compares a boot with its clone, resize, define and create alone,
// on connections that are open.
func BenchmarkBoot(b *testing.B) {
	h := open(b, 0)
	ctx := b.Context()
	var with session
	must(b, with.open(ctx, h))
	defer with.end()
	cluster, conn := with.cluster, with.conn
	s, _, err := h.SetSecret(ctx)
	must(b, err)
	monitors, err := cluster.Monitors(ctx)
	must(b, err)
	var made []string
	remove := func() error {
		for _, vm := range made {
			if _, err := h.Remove(ctx, vm); err != nil {
				return err
			}
		}
		made = nil
		return nil
	}
	const size = 128 << 20
	ours := func() error {
		vm, err := h.Boot(ctx, name(b), BootOptions{Image: "guest", Size: size, Memory: guestMemory})
		made = append(made, vm.UUID)
		return err
	}
	bare := func() error {
		id := uuid.NewString()
		root := disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(id)}
		xml, err := domain.Machine{Name: name(b), UUID: id, Type: "qemu", Memory: guestMemory, VCPUs: 1, Disks: []domain.Disk{{
			Target: "vda", Pool: root.Pool, Image: root.Image, User: cluster.User(),
			SecretUUID: s.UUID, Monitors: monitors, Conf: cluster.Conf(),
		}}}.XML()
		must(b, err)
		if err := cluster.Clone(ctx, disk.Name{Pool: disk.ImagePool, Image: "guest", Snap: "snap"}, 0, root); err != nil {
			return err
		}
		if _, err := cluster.Grow(ctx, root, size); err != nil {
			return err
		}
		d, err := conn.DomainDefineXMLFlags(xml, libvirt.DOMAIN_DEFINE_VALIDATE)
		if err != nil {
			return err
		}
		defer d.Free()
		made = append(made, id)
		return d.Create()
	}
	pair(b, ours, bare, remove)
}

// BenchmarkList compares vmdisk ls with rbd ls and virsh list together, as
// processes.
func BenchmarkList(b *testing.B) {
	h := open(b, 0)
	for range 10 {
		bootOf(b, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	}
	vmdisk := buildCommand(b)
	ours := func() error { return command(vmdisk, "ls", "-o", "json").Run() }
	theirs := func() error {
		if err := command("rbd", "--id", "cinder", "ls", "vms").Run(); err != nil {
			return err
		}
		return command("virsh", "list", "--all").Run()
	}
	pair(b, ours, theirs, func() error { return nil })
}

// BenchmarkVolumeList compares vmdisk volume ls with rbd ls -l of 300 volumes, 200 of
// them clones of an image.
func BenchmarkVolumeList(b *testing.B) {
	h := open(b, 0)
	var group errgroup.Group
	group.SetLimit(8)
	b.Cleanup(func() {
		for i := range 300 {
			group.Go(func() error { return h.RemoveVolume(context.Background(), fmt.Sprintf("many-%d", i)) })
		}
		must(b, group.Wait())
	})
	for i := range 300 {
		group.Go(func() (err error) {
			id := fmt.Sprintf("many-%d", i)
			if i < 100 {
				_, err = h.CreateVolume(b.Context(), id, disk.GiB)
			} else {
				_, err = h.CloneVolume(b.Context(), CloneOptions{ID: id, Image: "guest"})
			}
			return err
		})
	}
	must(b, group.Wait())
	vmdisk := buildCommand(b)
	pair(b, func() error { return command(vmdisk, "volume", "ls").Run() },
		func() error { return command("rbd", "--id", "cinder", "ls", "-l", "volumes").Run() },
		func() error { return nil })
}

// BenchmarkImport compares vmdisk image import with qemu-img convert of the same
// file, as processes: 2 GiB, of which 768 MiB hold random data.
func BenchmarkImport(b *testing.B) {
	h, vmdisk := open(b, 0), buildCommand(b)
	raw := filepath.Join(b.TempDir(), "bench.raw")
	must(b, writeSparse(raw, 2<<30, 768<<20))
	for _, format := range []struct{ name, options string }{
		{"raw", ""}, {"qcow2", "-O qcow2"}, {"zlib", "-O qcow2 -c"}, {"zstd", "-O qcow2 -c -o compression_type=zstd"},
	} {
		b.Run(format.name, func(b *testing.B) {
			file, kind := raw, "raw"
			if format.options != "" {
				file, kind = filepath.Join(b.TempDir(), "bench.qcow2"), "qcow2"
				out, err := exec.Command("sh", "-c", fmt.Sprintf("qemu-img convert -f raw %s %s %s", format.options, raw, file)).CombinedOutput()
				if err != nil {
					b.Fatalf("%v: %s", err, out)
				}
			}
			var peak float64
			ours := func() error {
				c := command(vmdisk, "image", "import", file, "--name", "bench", "--no-progress")
				err := c.Run()
				peak = max(peak, peakMemory(c.ProcessState))
				return err
			}
			theirs := func() error {
				return command("qemu-img", "convert", "-m", "16", "-W", "-f", kind, "-O", "raw", file,
					"rbd:images/theirs:id=cinder:conf="+testLab.Conf).Run()
			}
			pair(b, ours, theirs, func() error {
				return errors.Join(removeImage(h, "bench"), removeImage(h, "theirs"))
			})
			b.ReportMetric(peak, "peak-MiB")
		})
	}
}

// removeImage removes an image of either's making, if it is there.
func removeImage(h *Host, id string) error {
	err := h.RemoveImage(context.Background(), id)
	if errors.Is(err, disk.ErrNotFound) {
		return nil
	}
	return err
}

// writeSparse makes a file of which every so many MiB one holds random data.
func writeSparse(path string, size, data int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const piece = 4 << 20
	for i := range data / piece {
		if _, err := io.CopyN(io.NewOffsetWriter(f, i*piece*size/data), rand.Reader, piece); err != nil {
			return err
		}
	}
	return f.Truncate(size)
}

// buildCommand is vmdisk, built as the Makefile builds it.
func buildCommand(b testing.TB) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "vmdisk")
	if out, err := exec.Command("go", "build", "-o", path, "./cmd/vmdisk").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return path
}

// command is one on the lab. CEPH_ARGS keeps rbd out of the guests' folders.
func command(program string, args ...string) *exec.Cmd {
	c := exec.Command(program, args...)
	c.Env = append(append(os.Environ(), testLab.Env()...), "CEPH_ARGS=--log-file= --admin-socket=")
	return c
}

// peakMemory is the largest resident set of a process that ended, in MiB.
func peakMemory(s *os.ProcessState) float64 {
	usage, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return float64(usage.Maxrss) / 1024
}

// BenchmarkJournal compares a boot with one that is not written down.
func BenchmarkJournal(b *testing.B) {
	h := open(b, 0)
	ctx := b.Context()
	last := ""
	boot := func(unwritten bool) func() error {
		return func() error {
			h.unwritten = unwritten
			vm, err := h.Boot(ctx, name(b), BootOptions{Image: "guest", Size: 128 << 20, Memory: guestMemory})
			last = vm.UUID
			return err
		}
	}
	pair(b, boot(false), boot(true), func() error {
		_, err := h.Remove(ctx, last)
		return err
	})
}
