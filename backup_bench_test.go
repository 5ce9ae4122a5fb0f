package vmdisk

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// BenchmarkBackup compares an incremental backup of a thin volume of 20 GiB, of
// which 64 MiB changed since the last one, with rbd export-diff piped into rbd
// import-diff, as processes.
func BenchmarkBackup(b *testing.B) {
	const changed = 64 << 20
	for _, c := range []struct {
		name   string
		length int
	}{{"objects", 4 << 20}, {"blocks", 64 << 10}, {"pages", 4 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			h, vmdisk := open(b, 0), buildCommand(b)
			v, err := h.CreateVolume(b.Context(), "", 20*disk.GiB)
			must(b, err)
			b.Cleanup(func() { dropVolume(b, h, v.ID) })
			count := changed / c.length
			touch := func(seed uint64) error {
				random := rand.New(rand.NewPCG(seed, 0))
				return writeVolume(b, v.Name(), func(write func(off int64, p []byte)) {
					p := make([]byte, c.length)
					for range count {
						fill(random, p)
						write(random.Int64N(v.Size/int64(c.length))*int64(c.length), p)
					}
				})
			}
			must(b, touch(1))
			must(b, command("rbd", "--id", "cinder", "snap", "create", v.Name().String()+"@theirs0").Run())
			must(b, command("sh", "-c", fmt.Sprintf("rbd --id cinder-backup create --size 20G backups/theirs-%s && "+
				"rbd --id cinder export-diff %s@theirs0 - | rbd --id cinder-backup import-diff - backups/theirs-%s", v.ID, v.Name(), v.ID)).Run())
			b.Cleanup(func() {
				must(b, command("sh", "-c", fmt.Sprintf("rbd --id cinder-backup snap purge backups/theirs-%s && rbd --id cinder-backup rm backups/theirs-%s; "+
					"rbd --id cinder snap ls %s | awk '$2 ~ /^theirs/ { print $2 }' | while read s; do rbd --id cinder snap rm %s@$s; done",
					v.ID, v.ID, v.Name(), v.Name())).Run())
			})
			must(b, command(vmdisk, "backup", "create", v.ID, "--no-progress").Run())
			must(b, touch(2))
			var peak float64
			n := 0
			ours := func() error {
				c := command(vmdisk, "backup", "create", v.ID, "--incremental", "--no-progress")
				err := c.Run()
				peak = max(peak, peakMemory(c.ProcessState))
				return err
			}
			theirs := func() error {
				n++
				src := v.Name().String()
				return command("sh", "-c", fmt.Sprintf("rbd --id cinder snap create %s@theirs%d && rbd --id cinder export-diff --from-snap theirs%d %s@theirs%d - | "+
					"rbd --id cinder-backup import-diff - backups/theirs-%s", src, n, n-1, src, n, v.ID)).Run()
			}
			seed, turn := uint64(2), 0
			pair(b, ours, theirs, func() error {
				if turn++; turn%2 == 1 {
					return nil
				}
				seed++
				return touch(seed)
			})
			b.ReportMetric(peak, "peak-MiB")
			all, err := h.Backups(b.Context(), v.ID)
			must(b, err)
			b.ReportMetric(float64(all[len(all)-1].Bytes)/float64(changed), "written/changed")
		})
	}
}

// fill makes bytes that do not compress and are quick to make.
func fill(random *rand.Rand, p []byte) {
	for i := 0; i+8 <= len(p); i += 8 {
		n := random.Uint64() | 1
		for k := range 8 {
			p[i+k] = byte(n >> (8 * k))
		}
	}
}
