// The guest's first and only file system: an initial RAM disk with busybox, the
// oracle, the guest agent, what dirties memory, and the kernel modules needed.

package lab

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modules are those that guest/init loads. One that the kernel has built in is
// not in its package, and not needed.
var modules = []string{"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev",
	"virtio_pci", "virtio_blk", "virtio_console", "button", "evdev"}

// writeInitrd writes the RAM disk, with what is in root: the packages' kernel
// modules and agent, unpacked, and the dirtier, compiled.
func writeInitrd(ctx context.Context, root, path string) (err error) {
	busybox, err := program("busybox")
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	a := &archive{w: z}
	a.data("init", 0o755, guestFile("init"))
	a.data("sbin/shutdown", 0o755, guestFile("shutdown"))
	a.data("oracle.conf", 0o644, oracleConf())
	a.data("etc/passwd", 0o644, []byte("root:x:0:0::/:/bin/sh\n"))
	a.file("bin/busybox", busybox)
	a.file("sbin/dirty", filepath.Join(root, "dirty"))
	a.modules(ctx, root)
	a.agent(ctx, filepath.Join(root, "usr/sbin/qemu-ga"))
	a.data("TRAILER!!!", 0, nil)
	return errors.Join(a.err, z.Close())
}

// archive writes a cpio archive in the format "newc", the one that the kernel
// unpacks. Its first error ends it.
type archive struct {
	w    io.Writer
	dirs []string
	ino  int
	err  error
}

// file adds a program or library of this machine.
func (a *archive) file(name, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	a.data(name, 0o755, b)
}

// data adds a file and the directories that it is in.
func (a *archive) data(name string, mode fs.FileMode, b []byte) {
	for i, c := range name {
		if c == '/' && !slices.Contains(a.dirs, name[:i]) {
			a.dirs = append(a.dirs, name[:i])
			a.entry(name[:i], 0o040755, nil)
		}
	}
	a.entry(name, 0o100000|uint32(mode), b)
}

// entry adds one entry: a header of hexadecimal fields, the name and the data,
// each padded to 4 bytes.
func (a *archive) entry(name string, mode uint32, b []byte) {
	if a.err != nil {
		return
	}
	a.ino++
	const links, other = 1, 0
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, mode, other, other, links, other, len(b), other, other, other, other, len(name)+1, other)
	head := header + name + "\x00"
	for _, part := range [][]byte{[]byte(head), padding(len(head)), b, padding(len(b))} {
		if _, a.err = a.w.Write(part); a.err != nil {
			return
		}
	}
}

func padding(n int) []byte { return make([]byte, -n&3) }

// modules adds the kernel's modules, unpacked if they are packed.
func (a *archive) modules(ctx context.Context, root string) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		base, packed := strings.CutSuffix(filepath.Base(path), ".xz")
		name, isModule := strings.CutSuffix(base, ".ko")
		// The kernel spells one name with either of the two.
		if !isModule || !slices.Contains(modules, strings.ReplaceAll(name, "-", "_")) {
			return nil
		}
		b, err := os.ReadFile(path)
		if packed {
			b, err = run(ctx, "xz", "-dc", path)
		}
		a.data("lib/modules/"+base, 0o644, b)
		return err
	})
	a.err = errors.Join(a.err, err)
}

// agent adds the guest agent, and the libraries that it needs from this machine.
func (a *archive) agent(ctx context.Context, path string) {
	a.file("sbin/qemu-ga", path)
	out, err := run(ctx, "ldd", path)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			a.err = errors.Join(a.err, fmt.Errorf("the guest agent needs a library:\n  %s  install it:  apt-get install libglib2.0-0 libnuma1 liburing2 libudev1", line))
			return
		}
		if i := strings.IndexByte(line, '/'); i >= 0 {
			lib, _, _ := strings.Cut(line[i:], " ")
			a.file(strings.TrimPrefix(lib, "/"), lib)
		}
	}
}
