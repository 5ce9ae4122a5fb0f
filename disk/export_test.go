package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"
)

// imported is an image of a file, with its snapshot, that goes with the test.
func imported(t *testing.T, c *Cluster, file string) Name {
	t.Helper()
	src, err := OpenSource(file, SourceOptions{})
	check(t, err)
	defer src.Close()
	n := scratchName(t)
	check(t, c.BeginImport(t.Context(), n, src.Size()))
	check(t, c.Import(t.Context(), n, src, nil))
	check(t, c.Rename(t.Context(), PartName(n), n))
	t.Cleanup(func() { check(t, c.RemoveImage(context.WithoutCancel(t.Context()), n)) })
	n.Snap = ImageSnapshot
	check(t, c.CreateSnapshot(t.Context(), n))
	check(t, c.ProtectSnapshot(t.Context(), n))
	return n
}

func scratchName(t *testing.T) Name {
	return Name{Pool: ImagePool, Image: "export-" + filepath.Base(filepath.Dir(t.TempDir()))}
}

// An image comes out as it went in: to a raw file, a qcow2, a stream, and its
// checksum; also one that shares its data with a parent.
func TestExport(t *testing.T) {
	c := open(t)
	file := rawFixture(t, 48<<20+777)
	n := imported(t, c, file)
	want := fileSum(t, file)
	clone := Name{Pool: VMPool, Image: n.Image + "_clone"}
	check(t, c.Clone(t.Context(), n, 0, clone))
	defer func() { check(t, c.RemoveDisk(context.WithoutCancel(t.Context()), clone)) }()
	for _, from := range []Name{n, clone} {
		dir := t.TempDir()
		raw, qcow2 := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
		var last int64
		o := ExportOptions{Checksum: "sha256", Progress: func(done, total int64) {
			if done < last || total != 48<<20+777 {
				t.Errorf("progress is %d of %d after %d", done, total, last)
			}
			last = done
		}}
		for _, path := range []string{raw, qcow2} {
			target, err := CreateTarget(path, filepath.Base(path), false)
			check(t, err)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 1 {
				t.Errorf("a file has a name before it is whole: %v, %v", left, err)
			}
			last = 0
			if sum, err := c.Export(t.Context(), from, target, o); err != nil || sum != want {
				t.Errorf("checksum is %s, %v, not %s", sum, err, want)
			}
			if last != 48<<20+777 {
				t.Errorf("the last progress was %d", last)
			}
			check(t, target.Name())
			check(t, target.Abandon()) // leaves what has its name
		}
		command(t, "cmp", raw, file)
		command(t, "qemu-img", "check", "-q", qcow2)
		command(t, "qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", file, qcow2)
		if a, b := usedBy(t, raw), usedBy(t, file); a > b+1<<20 {
			t.Errorf("it takes %d bytes of disk, its source %d", a, b)
		}
		var stream bytes.Buffer
		_, err := c.ExportTo(t.Context(), from, &stream, ExportOptions{})
		check(t, err)
		if sum := sha256.Sum256(stream.Bytes()); hex.EncodeToString(sum[:]) != want {
			t.Error("the stream is another")
		}
	}
}

func usedBy(t *testing.T, path string) int64 {
	t.Helper()
	n, err := FileUsed(path)
	check(t, err)
	return n
}

// A target takes no name that is taken, unless it is told to; a full file system is
// ErrNoSpace; whatever goes wrong, nothing is left.
func TestExportRefuses(t *testing.T) {
	c := open(t)
	n := imported(t, c, rawFixture(t, 24<<20))
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	late, err := CreateTarget(path, "raw", false)
	check(t, err)
	check(t, os.WriteFile(path, []byte("mine"), 0o600))
	if err := late.Name(); !errors.Is(err, ErrExists) {
		t.Errorf("error is %v", err)
	}
	check(t, late.Abandon())
	if _, err := CreateTarget(path, "raw", false); !errors.Is(err, ErrExists) {
		t.Errorf("error is %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("it is %q now, %v", text, err)
	}
	forced, err := CreateTarget(path, "raw", true)
	check(t, err)
	check(t, forced.Name())
	if text, err := os.ReadFile(path); err != nil || len(text) > 0 {
		t.Errorf("it is %q now, %v", text, err)
	}
	for _, bad := range []string{dir, "/dev/null"} {
		if _, err := CreateTarget(bad, "raw", true); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error is %v", bad, err)
		}
	}
	if _, err := CreateTarget(filepath.Join(dir, "no/such"), "raw", false); !errors.Is(err, ErrNotFound) {
		t.Errorf("error is %v", err)
	}
	if _, err := CreateTarget(path, "vmdk", true); !errors.Is(err, ErrInvalid) {
		t.Errorf("error is %v", err)
	}

	// Mounts are of a thread: this one does not come back.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		full := t.TempDir()
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", full, "tmpfs", 0, "size=1m")); err != nil {
			t.Error(err)
			return
		}
		for _, format := range []string{"raw", "qcow2"} {
			target, err := CreateTarget(filepath.Join(full, "f"), format, false)
			if err != nil {
				t.Error(err)
				return
			}
			_, err = c.Export(t.Context(), n, target, ExportOptions{})
			if !errors.Is(err, ErrNoSpace) {
				t.Errorf("%s: error is %v", format, err)
			}
			if err := target.Abandon(); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(full); err != nil || len(left) > 0 {
				t.Errorf("left is %v, %v", left, err)
			}
		}
	}()
	<-done

	ctx, cancel := context.WithCancel(t.Context())
	target, err := CreateTarget(filepath.Join(dir, "cancelled"), "qcow2", false)
	check(t, err)
	_, err = c.Export(ctx, n, target, ExportOptions{Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	check(t, target.Abandon())
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left is %v, %v", left, err)
	}
	if _, err := c.ExportTo(t.Context(), n, io.Discard, ExportOptions{Checksum: "crc"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("error is %v", err)
	}
	if _, err := c.ExportTo(t.Context(), n, brokenPipe{}, ExportOptions{}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("error is %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, unix.EPIPE }

// Every format that is known by its first bytes is known in an image, too; in a
// volume or a machine's disk they are the guest's.
func TestCheckRaw(t *testing.T) {
	for i := range magics {
		m := &magics[i]
		head := make([]byte, magicSize)
		if m.at < 0 {
			continue
		}
		copy(head[m.at:], m.bytes)
		if got := match(head, nil); got.formatName() != m.formatName() {
			t.Errorf("%s is taken for %s", m.name, got.formatName())
		}
	}
	if got := match(make([]byte, magicSize), nil).formatName(); got != "raw" {
		t.Errorf("zeros are %s", got)
	}
	c := open(t)
	for _, n := range []Name{scratchName(t), {Pool: VolumePool, Image: "volume-looks-like-qcow2"}} {
		check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error { return createImage(io, n, 1<<20, imageOrder) }))
		defer func() { check(t, c.RemoveImage(context.WithoutCancel(t.Context()), n)) }()
		check(t, c.edit(t.Context(), n, func(img *rbd.Image) error {
			_, err := img.WriteAt([]byte("QFI\xfb"), 0)
			return err
		}))
		n.Snap = ImageSnapshot
		check(t, c.CreateSnapshot(t.Context(), n))
		check(t, c.ProtectSnapshot(t.Context(), n))
		clone := Name{Pool: VMPool, Image: "clone-of-" + n.Image}
		err := c.Clone(t.Context(), n, 0, clone)
		if n.Pool == ImagePool && !errors.Is(err, ErrNotRaw) {
			t.Errorf("%s: error is %v", n, err)
		}
		if n.Pool == ImagePool {
			err = c.CloneAsIs(t.Context(), n, 0, clone)
		}
		check(t, err)
		check(t, c.RemoveDisk(t.Context(), clone))
	}
}
