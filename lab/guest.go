// The guest: a disk image with Debian's kernel, busybox and the oracle, built
// once and kept in a cache for every later lab.

package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

//go:embed guest/init guest/shutdown guest/dirty.c
var guestFiles embed.FS

// The guest's disk, in bytes: a boot sector, a FAT partition to boot from, an
// ext4 partition to freeze, and the oracle's region at OracleRootBase.
const (
	guestSize  = 64 << 20
	fatStart   = 1 << 20
	fatSize    = 31 << 20
	extStart   = fatStart + fatSize
	extSize    = OracleRootBase - extStart
	sectorSize = 512

	bootCode = "/usr/lib/syslinux/mbr/mbr.bin"
	// kernelArgs make an emulated machine boot sooner.
	kernelArgs = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check"
	// guestVersion changes when the way the image is built does.
	guestVersion = "1"
)

// makeGuest puts a copy of the guest's image into the lab.
func (l *Lab) makeGuest(ctx context.Context) error {
	began := time.Now()
	cached, err := l.cachedGuest(ctx)
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	if _, err := run(ctx, "cp", "--sparse=always", "--reflink=auto", cached, l.Guest); err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	l.report("guest: image at %s: %.1f s", l.Guest, time.Since(began).Seconds())
	return nil
}

// cachedGuest returns the path of the built image, building it if need be. Two
// labs that come up at once build it once.
func (l *Lab) cachedGuest(ctx context.Context) (string, error) {
	if err := os.MkdirAll(l.cache, 0o755); err != nil {
		return "", err
	}
	lock, err := waitLock(ctx, filepath.Join(l.cache, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.release()
	image := filepath.Join(l.cache, "guest-"+guestKey()+".raw")
	if _, err := os.Stat(image); !errors.Is(err, fs.ErrNotExist) {
		return image, err
	}
	work := filepath.Join(l.cache, "build")
	if err := os.RemoveAll(work); err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.Mkdir(work, 0o755); err != nil {
		return "", err
	}
	built := filepath.Join(work, "guest.raw")
	if err := l.buildGuest(ctx, work, built); err != nil {
		return "", err
	}
	return image, os.Rename(built, image)
}

// guestKey tells images apart that were built in different ways.
func guestKey() string {
	h := sha256.New()
	fmt.Fprintln(h, guestVersion, kernelArgs, guestSize, fatStart, fatSize)
	h.Write(oracleConf())
	fmt.Fprintln(h, DirtyMarker)
	for _, name := range []string{"init", "shutdown", dirtySource} {
		h.Write(guestFile(name))
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

func guestFile(name string) []byte {
	b, err := guestFiles.ReadFile("guest/" + name)
	if err != nil {
		panic(err) // it is in this program
	}
	return b
}

// oracleConf gives the oracle the constants of its reader.
func oracleConf() []byte {
	return fmt.Appendf(nil, "MAGIC=%s\nBLOCK=%d\nSLOTS=%d\nROOT_BASE=%d\n",
		OracleMagic, OracleBlock, OracleSlots, OracleRootBase/OracleBlock)
}

// buildGuest builds the image in a folder of its own.
func (l *Lab) buildGuest(ctx context.Context, work, image string) error {
	debs, err := l.debs(ctx)
	if err != nil {
		return err
	}
	l.report("guest: building its image, once for every lab")
	root := filepath.Join(work, "debs")
	for _, deb := range debs {
		if _, err := run(ctx, "dpkg", "-x", deb, root); err != nil {
			return err
		}
	}
	kernel, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(kernel) != 1 {
		return fmt.Errorf("%v: no kernel in it", debs)
	}
	if err := compileDirty(ctx, filepath.Join(root, "dirty")); err != nil {
		return err
	}
	initrd := filepath.Join(work, "initrd")
	if err := writeInitrd(ctx, root, initrd); err != nil {
		return err
	}
	config := filepath.Join(work, "syslinux.cfg")
	text := "default linux\nprompt 0\ntimeout 0\nlabel linux\nkernel vmlinuz\ninitrd initrd\nappend " + kernelArgs + "\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	if err := partition(image); err != nil {
		return err
	}
	return fillPartitions(ctx, image, config, initrd, kernel[0])
}

// partition makes an empty disk with a boot sector and two partitions.
func partition(image string) error {
	code, err := os.ReadFile(bootCode)
	if err != nil {
		return err
	}
	var sector [sectorSize]byte
	copy(sector[:440], code)
	entry(sector[446:], 0x80, 0x0c, fatStart, fatSize) // to boot from, FAT
	entry(sector[462:], 0x00, 0x83, extStart, extSize) // Linux
	sector[510], sector[511] = 0x55, 0xaa
	if err := os.WriteFile(image, sector[:], 0o644); err != nil {
		return err
	}
	return os.Truncate(image, guestSize)
}

// entry writes an entry of the partition table, with addresses by block only.
func entry(b []byte, active, kind byte, start, size uint32) {
	noCHS := []byte{0xfe, 0xff, 0xff}
	b[0], b[4] = active, kind
	copy(b[1:4], noCHS)
	copy(b[5:8], noCHS)
	binary.LittleEndian.PutUint32(b[8:], start/sectorSize)
	binary.LittleEndian.PutUint32(b[12:], size/sectorSize)
}

// fillPartitions makes the file systems, the boot loader and its files.
func fillPartitions(ctx context.Context, image, config, initrd, kernel string) error {
	fat := fmt.Sprintf("%s@@%d", image, fatStart)
	// A journal as small as ext4 allows; nothing left to initialise in the guest.
	const extOptions = "lazy_itable_init=0,lazy_journal_init=0"
	for _, argv := range [][]string{
		{"mkfs.vfat", "-F", "16", "--offset", fmt.Sprint(fatStart / sectorSize), image, fmt.Sprint(fatSize / 1024)},
		{"syslinux", "--offset", fmt.Sprint(fatStart), "--install", image},
		{"mcopy", "-i", fat, config, "::syslinux.cfg"},
		{"mcopy", "-i", fat, initrd, "::initrd"},
		{"mcopy", "-i", fat, kernel, "::vmlinuz"},
		{"mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-J", "size=1",
			"-E", fmt.Sprintf("offset=%d,%s", extStart, extOptions), image, fmt.Sprint(extSize / 1024)},
	} {
		if _, err := runCommand(ctx, execution{argv: argv, env: []string{"MTOOLS_SKIP_CHECK=1"}}); err != nil {
			return err
		}
	}
	return nil
}

// debs returns the paths of the Debian packages that the guest is made of,
// downloaded if the cache has none.
func (l *Lab) debs(ctx context.Context) ([]string, error) {
	var paths []string
	for _, pkg := range []struct{ pattern, name string }{
		{"linux-image-[0-9]*.deb", "linux-image-cloud-amd64"},
		{"qemu-guest-agent_*.deb", "qemu-guest-agent"},
	} {
		pattern := filepath.Join(l.cache, pkg.pattern)
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			if err := l.download(ctx, pkg.name); err != nil {
				return nil, fmt.Errorf("downloading %s (apt-get update may help): %w", pkg.name, err)
			}
			found, _ = filepath.Glob(pattern)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("downloading %s left no %s", pkg.name, pattern)
		}
		paths = append(paths, found[len(found)-1])
	}
	return paths, nil
}

// download puts a package, or the kernel that it stands for, into the cache.
func (l *Lab) download(ctx context.Context, pkg string) error {
	out, err := run(ctx, "apt-cache", "depends", pkg)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(out) {
		if name, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("Depends: linux-image-")); ok {
			pkg = "linux-image-" + string(name)
		}
	}
	l.report("guest: downloading %s", pkg)
	incoming, err := os.MkdirTemp(l.cache, "incoming-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(incoming)
	if _, err := run(ctx, "sh", "-c", `cd "$1" && exec apt-get -q -o APT::Sandbox::User=root download "$2"`, "sh", incoming, pkg); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(incoming, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := os.Rename(deb, filepath.Join(l.cache, filepath.Base(deb))); err != nil {
			return err
		}
	}
	return nil
}
