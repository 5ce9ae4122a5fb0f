package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// instance is a folder of instances as Nova has it: instances/_base, instances/UUID.
func instance(t testing.TB) (dir, base string) {
	t.Helper()
	root := t.TempDir()
	dir, base = filepath.Join(root, "an-instance"), filepath.Join(root, "_base")
	for _, d := range []string{dir, base} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir, base
}

// qio writes with QEMU into an image, at byte offsets.
func qio(t testing.TB, path string, commands ...string) {
	t.Helper()
	args := []string{"-f", "qcow2"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	command(t, "qemu-io", append(args, path)...)
}

func overlay(t testing.TB, path, backing, format string, more ...string) {
	t.Helper()
	command(t, "qemu-img", append(append([]string{"create", "-q", "-f", "qcow2", "-b", backing, "-F", format}, more...), path)...)
}

// Chains three deep, with clusters of every kind in each layer, read as QEMU reads them.
func TestOpenLocalEqualsQemu(t *testing.T) {
	raw := rawFixture(t, 20<<20+12345)
	for _, tc := range []struct {
		name        string
		mid, top    []string
		size        string
		compressMid []string // of a whole qcow2 that the middle one is made from
	}{
		{"plain", nil, nil, "", nil},
		{"mixed clusters", []string{"-o", "cluster_size=4k"}, []string{"-o", "cluster_size=2M"}, "", nil},
		{"subclusters", []string{"-o", "cluster_size=16k,extended_l2=on"}, []string{"-o", "cluster_size=64k,extended_l2=on"}, "", nil},
		{"version 2", []string{"-o", "compat=0.10,cluster_size=512"}, []string{"-o", "compat=0.10"}, "", nil},
		{"grown", []string{"-o", "cluster_size=512"}, nil, "50M", nil},
		{"shrunk", nil, nil, "7M", nil},
		{"compressed", nil, []string{"-o", "cluster_size=8k"}, "", []string{"-c", "-o", "cluster_size=128k"}},
		{"zstd", nil, nil, "", []string{"-c", "-o", "compression_type=zstd"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, base := instance(t)
			bottom, mid, top := filepath.Join(base, "0a1b"), filepath.Join(base, "mid"), filepath.Join(dir, "disk")
			command(t, "cp", raw, bottom)
			if tc.compressMid == nil {
				overlay(t, mid, bottom, "raw", tc.mid...)
			} else {
				args := append([]string{"convert", "-f", "raw", "-O", "qcow2"}, tc.compressMid...)
				command(t, "qemu-img", append(args, bottom, mid)...)
			}
			zero := "write -z 3M 1M"
			if strings.Contains(fmt.Sprint(tc.mid), "0.10") {
				zero = "write -P 0 3M 1M"
			}
			qio(t, mid, "write -P 1 1000k 70k", zero, "write -P 2 9M 3k", "discard 6M 1M")
			overlay(t, top, "../_base/mid", "qcow2", tc.top...)
			if tc.size != "" {
				command(t, "qemu-img", "resize", "-q", "--shrink", "-f", "qcow2", top, tc.size)
			}
			qio(t, top, "write -P 3 5M 1k", "write -P 4 3500k 5000", "write -z 4M 512k")
			plain := filepath.Join(t.TempDir(), "plain")
			command(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, plain)
			want, err := os.ReadFile(plain)
			if err != nil {
				t.Fatal(err)
			}
			s, err := OpenLocal(top, LocalOptions{Format: "qcow2"})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if WholeSectors(s.Size()) != int64(len(want)) {
				t.Fatalf("Size() = %d, qemu-img says %d", s.Size(), len(want))
			}
			for _, n := range []int64{4 << 20, 64 << 10} {
				got, err := readAll(t, s, n)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want[:s.Size()]) {
					for i := range got {
						if got[i] != want[i] {
							t.Fatalf("chunks of %d: differs from QEMU's at %d: %#x, want %#x", n, i, got[i], want[i])
						}
					}
				}
			}
			layers, err := Layers(top, LocalOptions{Format: "qcow2"})
			if err != nil {
				t.Fatal(err)
			}
			deep := 3
			if tc.compressMid != nil {
				deep = 2
			}
			if len(layers) != deep || layers[0].Size != s.Size() || layers[1].Path != mid || layers[1].Used == 0 {
				t.Errorf("layers are %+v", layers)
			}
		})
	}
}

// forgetFormat makes the extension with the backing file's format one that is unknown.
func forgetFormat(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte{0xe2, 0x79, 0x2a, 0xca})
	copy(b[at:], "none")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenLocalRefuses(t *testing.T) {
	dir, base := instance(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	elsewhere := filepath.Join(t.TempDir(), "secret")
	command(t, "truncate", "-s", "1M", elsewhere)
	bottom := filepath.Join(base, "b")
	command(t, "truncate", "-s", "1M", bottom)
	overlay(t, in("outside"), elsewhere, "raw")
	if err := os.Symlink(elsewhere, in("link")); err != nil {
		t.Fatal(err)
	}
	overlay(t, in("through-link"), in("link"), "raw")
	overlay(t, in("missing"), bottom, "raw")
	command(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", in("nothing"), "-F", "raw", in("missing"))
	overlay(t, in("one"), bottom, "raw")
	overlay(t, in("two"), in("one"), "qcow2")
	command(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", in("two"), "-F", "qcow2", in("one"))
	overlay(t, in("no-format"), bottom, "raw")
	forgetFormat(t, in("no-format"))
	overlay(t, in("nbd"), bottom, "raw")
	command(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "nbd:localhost:10809", "-F", "raw", in("nbd"))
	overlay(t, in("json"), bottom, "raw")
	command(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", `json:{"driver":"raw","file":{"filename":"/etc/passwd"}}`, "-F", "raw", in("json"))
	overlay(t, in("device"), bottom, "raw")
	command(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "/dev/zero", "-F", "raw", in("device"))
	overlay(t, in("snapshots"), bottom, "raw")
	command(t, "qemu-img", "snapshot", "-c", "before", in("snapshots"))
	command(t, "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x",
		"-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100", in("luks"), "1M")
	command(t, "qemu-img", "create", "-q", "-f", "vmdk", in("vmdk"), "1M")
	for name, says := range map[string]string{
		"outside": "none of the allowed folders", "through-link": "none of the allowed folders", "missing": "is missing",
		"one": "leads back", "no-format": "qemu-img rebase", "nbd": "no plain file", "json": "no plain file",
		"device": "allowed folders", "snapshots": "internal snapshots", "luks": "encrypted", "vmdk": "VMDK",
	} {
		format := "qcow2"
		if name == "vmdk" {
			format = "raw"
		}
		for what, open := range map[string]func() error{
			"OpenLocal": func() error { _, err := OpenLocal(in(name), LocalOptions{Format: format}); return err },
			"Layers":    func() error { _, err := Layers(in(name), LocalOptions{Format: format}); return err },
		} {
			if err := open(); !errors.Is(err, ErrBadSource) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s of %s: error is %v", what, name, err)
			}
		}
	}
	s, err := OpenLocal(in("outside"), LocalOptions{Format: "qcow2", Allow: []string{filepath.Dir(elsewhere)}})
	if err != nil {
		t.Fatalf("in a folder that is allowed: %v", err)
	}
	s.Close()
}

// A QEMU that writes keeps it from being read, and while it is read none may write.
func TestOpenLocalLocks(t *testing.T) {
	dir, base := instance(t)
	bottom, top := filepath.Join(base, "b"), filepath.Join(dir, "disk")
	command(t, "truncate", "-s", "1M", bottom)
	overlay(t, top, bottom, "raw")
	writer := func() *osexec.Cmd {
		return osexec.Command("qemu-io", "-f", "qcow2", "-c", "write 0 4k", "-c", "sleep 60000", top)
	}
	s, err := OpenLocal(top, LocalOptions{Format: "qcow2"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := writer().CombinedOutput(); err == nil && !strings.Contains(string(out), "lock") {
		t.Errorf("QEMU writes what is being read: %s", out)
	}
	s.Close()
	w := writer()
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Wait() }()
	defer func() { _ = w.Process.Kill() }()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		s, err := OpenLocal(top, LocalOptions{Format: "qcow2"})
		if errors.Is(err, ErrInUse) {
			return
		}
		if err != nil || time.Since(begin) > 10*time.Second {
			t.Fatalf("error is %v", err)
		}
		s.Close()
	}
}
