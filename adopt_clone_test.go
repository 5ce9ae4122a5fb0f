package vmdisk

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// qemuIO writes into a qcow2.
func qemuIO(t testing.TB, file string, commands ...string) {
	t.Helper()
	args := []string{"-f", "qcow2"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	if out, err := exec.Command("qemu-io", append(args, file)...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-io %v: %v: %s", args, err, out)
	}
}

// importedFile is an image of a file, which goes with the test.
func importedFile(t *testing.T, h *Host, file string) fixture {
	t.Helper()
	f := fixture{Image: name(t), File: file}
	_, err := h.ImportImage(t.Context(), file, ImportOptions{ID: f.Image})
	must(t, err)
	t.Cleanup(func() { must(t, h.RemoveImage(context.WithoutCancel(t.Context()), f.Image)) })
	return f
}

// inside is the checksum of what is on an image.
func inside(t *testing.T, h *Host, n disk.Name) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	target, err := disk.CreateTarget(raw, "raw", false)
	must(t, err)
	_, err = mustCluster(t, h).Export(t.Context(), n, target, disk.ExportOptions{})
	must(t, errors.Join(err, target.Name()))
	return sum(t, raw)
}

// A machine whose lowest file is in Ceph as an image becomes a clone of that, off or
// running, with what is in the files above it; killed on the way, it is what it was.
func TestAdoptClone(t *testing.T) {
	h := open(t, 0)
	file := blankFile(t)
	image := importedFile(t, h, file).Image
	for _, state := range []string{"shut off", "running"} {
		t.Run(state, func(t *testing.T) {
			id := uuid.NewString()
			top := chained(t, id, file, "24M")
			qemuIO(t, filepath.Join(filepath.Dir(top), "../_base/0a1b2c_20"), "write -z 64k 32k", "write -P 1 3M 10k")
			qemuIO(t, top, "write -P 2 3074k 1k", "write -z 0 4k", "write -P 3 20M 4k")
			want := sum(t, top)
			f := localVM(t, id, "qcow2:"+top)
			if state == "running" {
				virsh(t, 0, "start", f.VM, "--paused")
			}
			parent := "images/" + image + "@snap"
			plan, err := h.PlanAdoption(t.Context(), f.VM, AdoptOptions{})
			must(t, err)
			if d := plan.Disks[0]; d.Parent != parent || d.Data >= d.Size || len(d.Chain) != 3 {
				t.Errorf("plan is %+v", d)
			}
			for _, step := range map[string][]string{"shut off": {"create", "copy"}, "running": {"create", "fill", "copy"}}[state] {
				must(t, dies(adoptPairs[0].do.process(f, point{step: step, nth: 1, when: after})))
				_, err := h.Repair(t.Context(), RepairOptions{})
				must(t, err)
				if images, err := mustCluster(t, h).MachineImages(t.Context(), disk.VMPool, id); err != nil || len(images) > 0 || f.has(t, "vda").Copying {
					t.Errorf("killed after %s, in Ceph there are %v: %v", step, images, err)
				}
			}
			a, err := h.Adopt(t.Context(), f.VM, AdoptOptions{})
			must(t, err)
			d := a.Disks[0]
			has, err := mustCluster(t, h).Parent(t.Context(), d.Name())
			must(t, err)
			if has.String() != parent || d.Parent != parent || d.Size != 24<<20 {
				t.Errorf("adopted is %+v, its parent %v", d, has)
			}
			if state == "running" {
				virsh(t, 0, "destroy", f.VM)
			}
			if got := inside(t, h, d.Name()); got != want {
				t.Errorf("%s has other content than %s", d.Name(), top)
			}
		})
	}
	t.Run("changed since", func(t *testing.T) {
		id := uuid.NewString()
		top := chained(t, id, file, "24M")
		qemuIO(t, filepath.Join(filepath.Dir(top), "../_base/0a1b2c"), "write -P 9 5M 1")
		f := localVM(t, id, "qcow2:"+top)
		plan, err := h.PlanAdoption(t.Context(), f.VM, AdoptOptions{})
		must(t, err)
		if strings.Contains(plan.Disks[0].Parent, image) {
			t.Errorf("plan is %+v", plan.Disks[0])
		}
	})
}
