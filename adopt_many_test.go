package vmdisk

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// Of a host's folders all machines are adopted but one that is broken; and that, when it
// is whole again, by the same call. What has no folder, or no definition, is told of.
func TestAdoptInstances(t *testing.T) {
	h := open(t, 0)
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "_base"), 0o755))
	bottom, missing := filepath.Join(root, "_base", "b"), filepath.Join(root, "_base", "b.away")
	qemuImg(t, "create", "-q", "-f", "raw", bottom, "8M")
	qemuImg(t, "convert", "-O", "raw", bottom, missing)
	folder := func(backing string) (id, file string) {
		id = uuid.NewString()
		must(t, os.Mkdir(filepath.Join(root, id), 0o755))
		file = filepath.Join(root, id, "disk")
		qemuImg(t, "create", "-q", "-f", "qcow2", "-b", backing, "-F", "raw", file)
		return id, file
	}
	vm := func(backing string) fixture {
		id, file := folder(backing)
		return localVM(t, id, "qcow2:"+file)
	}
	off, running, broken := vm(bottom), vm(bottom), vm(missing)
	virsh(t, 0, "start", running.VM, "--paused")
	must(t, os.Rename(missing, missing+"2"))
	stray := localVM(t, uuid.NewString(), "raw:"+blankFile(t))
	forsaken, _ := folder(bottom)
	must(t, os.WriteFile(filepath.Join(root, forsaken, "libvirt.xml"),
		[]byte("<domain type='qemu'><name>forsaken</name><uuid>"+forsaken+"</uuid></domain>"), 0o600))
	was := stateNow(t)
	// outcome is what is said of each.
	outcome := func(dry bool) (map[string]Instance, error) {
		all, err := h.AdoptInstances(t.Context(), root, InstancesOptions{DryRun: dry})
		by := map[string]Instance{}
		for _, i := range all {
			by[i.UUID] = i
		}
		if i := by[stray.UUID]; i.Dir != "" || i.Whole() || i.VM != stray.VM {
			t.Errorf("without a folder: %+v", i)
		}
		if i := by[forsaken]; i.VM != "forsaken" || i.State != "" || i.Whole() || len(i.Disks) != 1 || len(i.Disks[0].Chain) != 2 || !strings.Contains(i.Next, "virsh define") {
			t.Errorf("without a definition: %+v", i)
		}
		for _, f := range []fixture{off, running} {
			if i := by[f.UUID]; i.Err != nil || i.Dir != filepath.Join(root, f.UUID) || len(i.Disks) != 1 || len(i.Disks[0].Chain) != 2 {
				t.Errorf("%s: %+v", f.VM, i)
			}
		}
		return by, err
	}
	fails := func(err error) {
		t.Helper()
		var some *InstancesError
		if !errors.As(err, &some) || some.Of != 3 || !slices.Equal(some.VMs, []string{broken.VM}) || !errors.Is(err, disk.ErrBadSource) {
			t.Errorf("error is %v", err)
		}
	}
	_, err := outcome(true)
	fails(err)
	was.unchanged(t)
	by, err := outcome(false)
	fails(err)
	if i := by[broken.UUID]; !errors.Is(i.Err, disk.ErrBadSource) || !strings.Contains(i.Err.Error(), "missing") {
		t.Errorf("broken: %+v", i)
	}
	for _, f := range []fixture{off, running} {
		if now := f.has(t, "vda"); now.Kept.Image != f.UUID+"_disk" {
			t.Errorf("the disk of %s is %+v", f.VM, now)
		}
	}
	must(t, os.Rename(missing+"2", missing))
	all, err := h.AdoptInstances(t.Context(), root, InstancesOptions{Jobs: 3})
	must(t, err)
	for _, i := range all {
		if done := len(i.Disks) == 1; i.Err != nil || i.Whole() && done != (i.UUID == broken.UUID) {
			t.Errorf("again: %+v", i)
		}
	}
	if now := stray.has(t, "vda"); now.Kept.Pool != "" {
		t.Errorf("the disk of the one without a folder is %+v", now)
	}
	if _, err := h.AdoptInstances(t.Context(), filepath.Join(root, "none"), InstancesOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no folder: %v", err)
	}
}
