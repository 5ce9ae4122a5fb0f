package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// command runs a real tool and fails the test if it does.
func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := osexec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// rawFixture makes a sparse raw file with some data: random, text, zeros that
// are not a hole, and a last piece that no sector size divides.
func rawFixture(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fixture.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 700_001)
	_, _ = r.Read(noise)
	text := bytes.Repeat([]byte("no two disks are alike, "), 30_000)
	for _, w := range []struct {
		off int64
		p   []byte
	}{
		{0, noise[:100]}, {1 << 20, text}, {3<<20 + 4096, noise}, {5 << 20, make([]byte, 1<<20)},
		{8<<20 - 1000, noise[:5000]}, {size - 777, noise[:777]},
	} {
		if _, err := f.WriteAt(w.p, w.off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

// qcow2Fixture converts a raw file with the options given.
func qcow2Fixture(t testing.TB, raw string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fixture.qcow2")
	command(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...), raw, path)...)
	return path
}

// patch returns a copy of the file at path with the bytes at off replaced.
func patch(t testing.TB, path string, off int64, p ...byte) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[off:], p)
	out := filepath.Join(t.TempDir(), "patched.qcow2")
	if err := os.WriteFile(out, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// word is the 8 bytes at off of a file.
func word(t testing.TB, path string, off int64) uint64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint64(b[off:])
}

// l2At is where the first allocated L2 table is, and the first used entry of it.
func l2At(t testing.TB, path string) (l1Entry, l2Entry int64) {
	t.Helper()
	l1 := int64(word(t, path, 40))
	for word(t, path, l1)&offsetMask == 0 {
		l1 += 8
	}
	l2 := int64(word(t, path, l1) & offsetMask)
	for word(t, path, l2) == 0 {
		l2 += 8
	}
	return l1, l2
}

func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func truncated(t testing.TB, path string, by int64) string {
	t.Helper()
	out := patch(t, path, 0)
	fi, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	command(t, "truncate", "-s", fmt.Sprint(fi.Size()-by), out)
	return out
}

func fileOf(t testing.TB, p string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(p), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenSourceRefuses(t *testing.T) {
	raw := rawFixture(t, 20<<20)
	v3 := qcow2Fixture(t, raw)
	v2 := qcow2Fixture(t, raw, "-o", "compat=0.10")
	zlib := qcow2Fixture(t, raw, "-c")
	ext := qcow2Fixture(t, raw, "-o", "extended_l2=on")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }

	backed, data, luks := in("backed.qcow2"), in("data.qcow2"), in("luks.qcow2")
	command(t, "qemu-img", "create", "-f", "qcow2", "-b", v3, "-F", "qcow2", backed)
	command(t, "qemu-img", "create", "-f", "qcow2", "-o", "data_file="+in("data.raw"), data, "1M")
	command(t, "qemu-img", "create", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100", luks, "1M")
	command(t, "qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=2M", in("huge.qcow2"), "63T")
	for _, f := range []string{"vmdk", "vhdx", "vdi", "vpc", "qed", "qcow", "parallels"} {
		command(t, "qemu-img", "convert", "-O", f, raw, in("disk."+f))
	}
	command(t, "qemu-img", "convert", "-O", "vpc", "-o", "subformat=fixed", raw, in("fixed.vpc"))
	if err := syscall.Mkfifo(in("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "truncate", "-s", "3T", in("big.raw"))
	l1, l2 := l2At(t, v3)
	_, l2zlib := l2At(t, zlib)
	_, l2v2 := l2At(t, v2)
	_, l2ext := l2At(t, ext)
	ones := be64(^uint64(0))

	for _, tc := range []struct {
		name, path, format, want string
	}{
		{"backing file", backed, "", `backing file "` + v3},
		{"data file", data, "", "another file"},
		{"luks", luks, "", "encrypted"},
		{"aes", patch(t, v3, 32, 0, 0, 0, 1), "", "encrypted"},
		{"63 TiB", in("huge.qcow2"), "", "above the limit"},
		{"raw of 3 TiB", in("big.raw"), "", "above the limit"},
		{"size 2^64-1", patch(t, v3, 24, ones...), "", "above the limit"},
		{"size 0", patch(t, v3, 24, be64(0)...), "", "virtual size is 0"},
		{"version 9", patch(t, v3, 4, 0, 0, 0, 9), "", "version 9"},
		{"qcow version 1", in("disk.qcow"), "", "version 1"},
		{"cluster bits 8", patch(t, v3, 20, 0, 0, 0, 8), "", "cluster bits are 8"},
		{"cluster bits 22", patch(t, v3, 20, 0, 0, 0, 22), "", "cluster bits are 22"},
		{"corrupt bit", patch(t, v3, 79, 2), "", "marked corrupt"},
		{"data file bit", patch(t, v3, 79, 4), "", "another file"},
		{"unknown bit", patch(t, v3, 72, 0x80), "", "unknown here"},
		{"compression unannounced", patch(t, v3, 104, 1), "", "compression type 1"},
		{"compression unknown", patch(t, patch(t, v3, 79, 8), 104, 7), "", "compression type 7"},
		{"compression bit alone", patch(t, v3, 79, 8), "", "compression type 0"},
		{"refcount order", patch(t, v3, 96, 0, 0, 0, 7), "", "refcount order"},
		{"header length 0", patch(t, v3, 100, 0, 0, 0, 0), "", "header length"},
		{"header length huge", patch(t, v3, 100, 0xff), "", "header length"},
		{"header cut", fileOf(t, "QFI\xfb\x00\x00\x00\x03"), "", "cut short"},
		{"v3 header cut", fileOf(t, "QFI\xfb\x00\x00\x00\x03"+string(make([]byte, 12))+"\x00\x00\x00\x10\x00\x00\x00\x00\x00\x10\x00\x00"+string(make([]byte, 50))), "", "cut short"},
		{"no L1 entries", patch(t, v3, 36, 0, 0, 0, 0), "", "L1 table has 0 entries"},
		{"L1 misaligned", patch(t, v3, 40, be64(word(t, v3, 40)+512)...), "", "not at a cluster"},
		{"L1 at 0", patch(t, v3, 40, be64(0)...), "", "not at a cluster"},
		{"L1 beyond end", patch(t, v3, 40, be64(1<<40)...), "", "cut short"},
		{"L1 at 2^63", patch(t, v3, 40, be64(1<<63)...), "", "cut short"},
		{"L1 entry ff", patch(t, v3, l1, ones...), "", "L1 entry 0 is damaged"},
		{"L1 entry misaligned", patch(t, v3, l1, be64(word(t, v3, l1)+512)...), "", "L1 entry 0 is damaged"},
		{"L2 table beyond end", patch(t, v3, l1, be64(1<<63|1<<40)...), "", "cut short"},
		{"L2 entry ff", patch(t, v3, l2, ones...), "", "L2 entry of cluster 0 is damaged"},
		{"L2 entry misaligned", patch(t, v3, l2, be64(word(t, v3, l2)+512)...), "", "damaged"},
		{"L2 entry reserved bit", patch(t, v3, l2, be64(word(t, v3, l2)|2)...), "", "damaged"},
		{"cluster beyond end", patch(t, v3, l2, be64(1<<63|1<<40)...), "", "cut short"},
		{"zero flag in v2", patch(t, v2, l2v2, be64(1)...), "", "damaged"},
		{"subcluster zero and data", patch(t, ext, l2ext+8, ones...), "", "damaged"},
		{"subclusters of nothing", patch(t, ext, l2ext, be64(0)...), "", "damaged"},
		{"zero flag in extended L2", patch(t, ext, l2ext, be64(1)...), "", "damaged"},
		{"compressed beyond end", patch(t, zlib, l2zlib, be64(1<<62|1<<40)...), "", "cut short"},
		{"compressed and copied", patch(t, zlib, l2zlib, be64(word(t, zlib, l2zlib)|1<<63)...), "", "damaged"},
		{"compressed at 0", patch(t, zlib, l2zlib, be64(1<<62)...), "", "damaged"},
		{"qcow2 cut", truncated(t, v3, 1), "", "cut short"},
		{"qcow2 cut in half", truncated(t, v3, 1<<20), "", "cut short"},
		{"v2 cut", truncated(t, v2, 65536), "", "cut short"},
		{"compressed cut", truncated(t, zlib, 512), "", "cut short"},
		{"qcow2 called raw", v3, "raw", "it is qcow2, not raw"},
		{"raw called qcow2", raw, "qcow2", "it is not qcow2"},
		{"vmdk called raw", in("disk.vmdk"), "raw", "it is VMDK"},
		{"vmdk called qcow2", in("disk.vmdk"), "qcow2", "qemu-img convert -f vmdk"},
		{"vmdk", in("disk.vmdk"), "", "qemu-img convert -f vmdk"},
		{"vmdk descriptor", fileOf(t, "# Disk DescriptorFile\nversion=1\n"), "raw", "it is VMDK"},
		{"vhdx", in("disk.vhdx"), "", "qemu-img convert -f vhdx"},
		{"vdi", in("disk.vdi"), "", "qemu-img convert -f vdi"},
		{"vhd", in("disk.vpc"), "", "qemu-img convert -f vpc"},
		{"vhd called raw", in("disk.vpc"), "raw", "it is VHD"},
		{"fixed vhd", in("fixed.vpc"), "", "qemu-img convert -f vpc"},
		{"qed", in("disk.qed"), "", "qemu-img convert -f qed"},
		{"parallels", in("disk.parallels"), "", "qemu-img convert -f parallels"},
		{"gzip", fileOf(t, "\x1f\x8b\x08rest"), "", "gunzip FILE"},
		{"xz", fileOf(t, "\xfd7zXZ\x00rest"), "", "unxz FILE"},
		{"zstd", fileOf(t, "\x28\xb5\x2f\xfdrest"), "", "unzstd FILE"},
		{"bzip2", fileOf(t, "BZh91AY&SYrest"), "", "bunzip2 FILE"},
		{"luks disk", fileOf(t, "LUKS\xba\xbe\x00\x02"), "", "LUKS"},
		{"empty", fileOf(t, ""), "", "empty"},
		{"empty as raw", fileOf(t, ""), "raw", "empty"},
		{"unknown format", raw, "vmdk", "use raw or qcow2"},
		{"directory", dir, "", "not a regular file"},
		{"fifo", in("fifo"), "", "not a regular file"},
		{"character device", "/dev/null", "", "not a regular file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := OpenSource(tc.path, SourceOptions{Format: tc.format})
			if err == nil {
				s.Close()
				t.Fatal("accepted")
			}
			if !errors.Is(err, ErrBadSource) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.path) {
				t.Errorf("error = %v\nwant ErrBadSource that names the file and says %q", err, tc.want)
			}
		})
	}
}

func TestOpenSourceAccepts(t *testing.T) {
	raw := rawFixture(t, 20<<20)
	v3 := qcow2Fixture(t, raw)
	fixed := filepath.Join(t.TempDir(), "fixed.vpc")
	command(t, "qemu-img", "convert", "-O", "vpc", "-o", "subformat=fixed", raw, fixed)
	for _, tc := range []struct{ name, path, asked, got string }{
		{"raw", raw, "", "raw"},
		{"raw, asked", raw, "raw", "raw"},
		{"qcow2", v3, "", "qcow2"},
		{"qcow2, asked", v3, "qcow2", "qcow2"},
		{"dirty qcow2", patch(t, v3, 79, 1), "", "qcow2"},
		{"one byte", fileOf(t, "x"), "", "raw"},
		{"gzip as raw", fileOf(t, "\x1f\x8b\x08rest"), "raw", "raw"},
		{"luks as raw", fileOf(t, "LUKS\xba\xbe\x00\x02"), "raw", "raw"},
		{"fixed vhd as raw", fixed, "raw", "raw"},
		{"iso", fileOf(t, string(make([]byte, 32768))+"\x01CD001\x01"), "", "raw"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := OpenSource(tc.path, SourceOptions{Format: tc.asked})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Format() != tc.got {
				t.Errorf("Format() = %q, want %q", s.Format(), tc.got)
			}
		})
	}
	if _, err := OpenSource(filepath.Join(t.TempDir(), "none"), SourceOptions{}); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrBadSource) {
		t.Errorf("missing file: %v, want fs.ErrNotExist and no ErrBadSource", err)
	}
	if _, err := OpenSource(raw, SourceOptions{MaxSize: 20<<20 - 1}); !errors.Is(err, ErrBadSource) {
		t.Errorf("MaxSize: %v, want a refusal", err)
	}
}

func TestSourceChanged(t *testing.T) {
	for name, change := range map[string]func(*os.File) error{
		"written": func(f *os.File) error { _, err := f.WriteAt([]byte{1}, 5); return err },
		"grown":   func(f *os.File) error { return f.Truncate(30 << 20) },
		"cut":     func(f *os.File) error { return f.Truncate(1 << 20) },
	} {
		t.Run(name, func(t *testing.T) {
			raw := rawFixture(t, 20<<20)
			s, err := OpenSource(raw, SourceOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.unchanged(); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(raw, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := change(f); err != nil {
				t.Fatal(err)
			}
			if err := s.unchanged(); !errors.Is(err, ErrBadSource) || !strings.Contains(err.Error(), "changed while being imported") {
				t.Errorf("unchanged() = %v", err)
			}
		})
	}
}
