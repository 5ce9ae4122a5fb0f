package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Chains three deep over an image that is in Ceph: the clone holds what QEMU reads, and
// of what both have nothing was written.
func TestFillClone(t *testing.T) {
	c := open(t)
	raw := rawFixture(t, 20<<20)
	n := imported(t, c, raw)
	for _, tc := range []struct {
		name        string
		bottom, mid []string // how they are made
		top         []string
		size        string // of the machine's disk, if not the image's
		layer       int    // that the image is like
		mids, tops  []string
		most        int64 // bytes that may be written
	}{
		{"compressed base", []string{"-O", "qcow2", "-c", "-o", "cluster_size=16k"}, []string{"-o", "cluster_size=4k"}, []string{"-o", "cluster_size=2M"}, "", 2,
			[]string{"write -P 1 1000k 70k", "write -z 3M 128k"}, []string{"write -P 3 5M 1k"}, 5 * 64 << 10},
		{"nothing in between", []string{"-O", "qcow2", "-c", "-o", "compression_type=zstd"}, nil, []string{"-o", "cluster_size=64k,extended_l2=on"}, "64M", 1,
			nil, []string{"write -z 3M 1M", "write -P 4 40M 1k", "discard 8M 64k"}, 18 * 64 << 10},
		{"raw base, grown", []string{"-O", "raw"}, []string{"-o", "cluster_size=512"}, nil, "50M", 2, []string{"write -P 7 8100k 3k"}, nil, 2 * 64 << 10},
		{"another base", []string{"-O", "raw"}, nil, nil, "", 0, nil, nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, base := instance(t)
			bottom, mid, top := filepath.Join(base, "0a1b"), filepath.Join(base, "mid"), filepath.Join(dir, "disk")
			command(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, tc.bottom...), raw, bottom)...)
			if tc.layer == 0 {
				f, err := os.OpenFile(bottom, os.O_WRONLY, 0)
				check(t, err)
				_, err = f.WriteAt([]byte{1}, 19<<20) // where there was nothing
				check(t, errors.Join(err, f.Close()))
			}
			overlay(t, mid, bottom, map[bool]string{true: "raw", false: "qcow2"}[tc.bottom[1] == "raw"], tc.mid...)
			overlay(t, top, "../_base/mid", "qcow2", tc.top...)
			if tc.size != "" {
				command(t, "qemu-img", "resize", "-q", "-f", "qcow2", top, tc.size)
			}
			qio(t, mid, append(tc.mids, "read 0 1k")...)
			qio(t, top, append(tc.tops, "read 0 1k")...)
			o := LocalOptions{Format: "qcow2"}
			src, err := OpenLocal(top, o)
			check(t, err)
			defer src.Close()
			b, err := c.FindBasis(t.Context(), ImagePool, top, o, src.Size(), nil, nil)
			check(t, err)
			if tc.layer == 0 {
				if b != nil {
					t.Errorf("basis is %+v", b)
				}
				return
			}
			if b == nil || b.Image.Image != n.Image || b.Layer != tc.layer {
				t.Fatalf("basis is %+v", b)
			}
			if again, err := c.FindBasis(t.Context(), ImagePool, top, o, src.Size(), b, nil); again != b || err != nil {
				t.Errorf("again: %+v, %v", again, err)
			}
			disk := Name{Pool: VMPool, Image: n.Image + "-" + strings.ReplaceAll(tc.name, " ", "-")}
			check(t, c.CloneAsIs(t.Context(), b.Image, src.Size(), disk))
			t.Cleanup(func() { check(t, c.RemoveDisk(context.WithoutCancel(t.Context()), disk)) })
			sent, err := c.FillClone(t.Context(), disk, src, b, nil)
			check(t, err)
			if sent == 0 || sent > tc.most {
				t.Errorf("%d bytes were written, not up to %d", sent, tc.most)
			}
			plain, ours := filepath.Join(t.TempDir(), "plain"), filepath.Join(t.TempDir(), "ours")
			command(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, plain)
			target, err := CreateTarget(ours, "raw", false)
			check(t, err)
			_, err = c.Export(t.Context(), disk, target, ExportOptions{})
			check(t, errors.Join(err, target.Name()))
			command(t, "cmp", plain, ours)
		})
	}
}
