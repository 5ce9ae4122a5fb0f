package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
)

// qemuImg runs the real one.
func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
}

// instances is a folder of instances as Nova has it, and that of one machine in it.
func instances(t testing.TB, vm string) (base, dir string) {
	t.Helper()
	root := t.TempDir()
	base, dir = filepath.Join(root, "_base"), filepath.Join(root, vm)
	for _, d := range []string{base, dir} {
		must(t, os.Mkdir(d, 0o755))
	}
	return base, dir
}

// chained puts an overlay over an image file in _base, by another in between with small
// compressed clusters, and returns its path.
func chained(t testing.TB, vm, image, size string) string {
	t.Helper()
	base, dir := instances(t, vm)
	bottom, mid, top := filepath.Join(base, "0a1b2c"), filepath.Join(base, "0a1b2c_20"), filepath.Join(dir, "disk")
	qemuImg(t, "convert", "-O", "qcow2", "-c", "-o", "cluster_size=16k", image, bottom)
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", bottom, "-F", "qcow2", mid)
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", "../_base/0a1b2c_20", "-F", "qcow2", top, size)
	return top
}

// blankFile is a raw file of 8 MiB with something in it.
func blankFile(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "blank")
	must(t, os.WriteFile(file, []byte(strings.Repeat("no bootable device\n", 10000)), 0o600))
	must(t, os.Truncate(file, 8<<20))
	return file
}

// localVM is a machine, defined without vmdisk, whose disks are files, the first at vda;
// each is FORMAT:PATH. It is removed from wherever it is when the test ends.
func localVM(t testing.TB, id string, files ...string) fixture {
	t.Helper()
	m := domain.Machine{Name: name(t), UUID: id, Type: "qemu", Memory: guestMemory, VCPUs: 1}
	xml, err := m.XML()
	must(t, err)
	disks := ""
	for i, f := range files {
		format, path, _ := strings.Cut(f, ":")
		disks += fmt.Sprintf(`<disk type='file' device='disk'><driver name='qemu' type='%s' cache='none' io='native'/><source file='%s'/>`+
			`<target dev='vd%c' bus='virtio'/><serial>disk-%d</serial><iotune><total_iops_sec>90000</total_iops_sec></iotune></disk>`, format, path, 'a'+i, i)
	}
	xml = strings.Replace(xml, "</devices>", disks+"</devices>", 1)
	must(t, domain.Define(t.Context(), connected(t, 0), m.Name, id, xml))
	t.Cleanup(func() { removeAnywhere(t, id) })
	return fixture{VM: m.Name, UUID: id, File: strings.SplitN(files[0], ":", 2)[1]}
}

// localGuest is the lab's guest on a chain of three files, the lowest of which is in
// Ceph as an image, and it writes.
func localGuest(t *testing.T) (fixture, console) {
	t.Helper()
	id := uuid.NewString()
	return guestIn(t, id, chained(t, id, testLab.Guest, "100M"))
}

// guestIn is the lab's guest in a qcow2, and it writes.
func guestIn(t *testing.T, id, file string) (fixture, console) {
	t.Helper()
	f := localVM(t, id, "qcow2:"+file)
	virsh(t, 0, "start", f.VM)
	c := consoleOf(f.VM)
	c.writes(t, 0, "vda")
	return f, c
}

// has says where a machine's disk is, as libvirt says it.
func (f fixture) has(t *testing.T, target string) domain.Relocating {
	t.Helper()
	now, err := domain.Relocation(t.Context(), connected(t, 0), f.UUID, target)
	must(t, err)
	return now
}

// holds proves that every block which the guest saw acknowledged is in its file.
func holds(t testing.TB, file string, acked uint64) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	qemuImg(t, "convert", "-O", "raw", file, raw)
	f, err := os.Open(raw)
	must(t, err)
	defer f.Close()
	fi, err := f.Stat()
	must(t, err)
	blocks, err := lab.OracleBlocks(f, fi.Size())
	must(t, err)
	if err := blocks.Check(acked); err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

// A guest that writes all the time goes into Ceph, back into its file, into Ceph again,
// to the other host, and out into a new file. Not one acknowledged write is missing.
func TestAdoptAndBack(t *testing.T) {
	f, c := localGuest(t)
	h, other := open(t, 0), open(t, 1)
	adopt := func(parent string) {
		t.Helper()
		a, err := h.Adopt(t.Context(), f.VM, AdoptOptions{})
		must(t, err)
		d := a.Disks[0]
		if !a.Running || d.Name().String() != "vms/"+f.UUID+"_disk" || d.Size != 100<<20 || d.Parent != parent || d.Stood <= 0 || d.Stood > time.Second {
			t.Errorf("adoption is %+v", a)
		}
		t.Logf("adopted in %v, stood still for %v", d.Elapsed, d.Stood)
		now := f.has(t, "vda")
		if now.Live.Image != d.Image || now.Kept.Image != d.Image || now.Kept.Cache != "writeback" ||
			now.Kept.Serial != "disk-0" || now.Kept.QoS.TotalIopsSec != 90000 || now.Live.QoS.TotalIopsSec != 90000 {
			t.Errorf("its disk is %+v", now)
		}
		c.writes(t, 0, "vda")
	}
	adopt("images/guest@snap")
	if parent, err := mustCluster(t, h).Parent(t.Context(), disk.Name{Pool: disk.VMPool, Image: f.UUID + "_disk"}); err != nil || parent.String() != "images/guest@snap" {
		t.Errorf("its parent is %v: %v", parent, err)
	}
	a, err := h.Unadopt(t.Context(), f.VM, EjectOptions{})
	must(t, err)
	if now := f.has(t, "vda"); now.Live.Source != f.File || now.Kept.Source != f.File || now.Kept.Cache != "none" || a.Disks[0].File != f.File {
		t.Errorf("its disk is %+v", now)
	}
	c.writes(t, 0, "vda")
	adopt("") // the file stands alone now
	if removed, err := h.RemoveAdopted(t.Context(), f.VM); err != nil || !slices.Equal(removed, []string{f.File}) {
		t.Errorf("removed %v: %v", removed, err)
	}
	if _, err := os.Stat(f.File); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	_, err = h.Migrate(t.Context(), f.VM, testLab.Hosts[1].URI, MigrateOptions{})
	must(t, err)
	c.writes(t, 1, "vda")
	dir := t.TempDir()
	a, err = other.Eject(t.Context(), f.VM, EjectOptions{Dir: dir})
	must(t, err)
	c.writes(t, 1, "vda")
	stopped(t, other, VM{UUID: f.UUID})
	if images, err := mustCluster(t, h).MachineImages(t.Context(), disk.VMPool, f.UUID); err != nil || len(images) > 0 {
		t.Errorf("in Ceph there are %v: %v", images, err)
	}
	qemuImg(t, "check", "-q", a.Disks[0].File)
	holds(t, a.Disks[0].File, c.acked(t, "vda"))
}

// copies starts what takes a while to copy the machine's disk, and waits until it is at it
// and the guest has written.
func (f fixture) copies(t *testing.T, c console, start func()) {
	t.Helper()
	start()
	for ctx := waiting(t); !f.has(t, "vda").Copying; {
		must(t, sleep(ctx, 20*time.Millisecond))
	}
	c.writes(t, 0, "vda")
}

// Whoever dies while a disk is copied: the guest has its file, and nothing is left.
func TestAdoptKilled(t *testing.T) {
	alone := filepath.Join(t.TempDir(), "disk")
	qemuImg(t, "convert", "-O", "qcow2", testLab.Guest, alone) // nothing that is in Ceph already
	f, c := guestIn(t, uuid.NewString(), alone)
	h := open(t, 0)
	_, _, err := h.SetSecret(t.Context())
	must(t, err)
	was := stateNow(t)
	inside := func(ctx context.Context, h *Host) func() error {
		done := make(chan error, 1)
		go func() {
			_, err := h.Adopt(ctx, f.VM, AdoptOptions{Bandwidth: 1 << 20})
			done <- err
		}()
		return func() error { return <-done }
	}
	unchanged := func(t *testing.T) {
		t.Helper()
		if r, err := h.Repair(t.Context(), RepairOptions{VM: f.VM}); err != nil || r.Changed() {
			t.Errorf("a repair has something to do: %+v, %v", r, err)
		}
		was.records(t)
	}
	t.Run("command", func(t *testing.T) {
		cmd, err := child("workflow", crash{Workflow: "adopt slowly", Fixture: f})
		must(t, err)
		f.copies(t, c, func() { must(t, cmd.Start()) })
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		_, err = h.Repair(t.Context(), RepairOptions{VM: f.VM})
		must(t, err)
		c.writes(t, 0, "vda")
		unchanged(t)
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var wait func() error
		f.copies(t, c, func() { wait = inside(ctx, h) })
		cancel()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		c.writes(t, 0, "vda")
		unchanged(t)
	})
	t.Run("libvirtd", func(t *testing.T) {
		doomed := impatient(t, 0, 0, nil)
		var wait func() error
		f.copies(t, c, func() { wait = inside(t.Context(), doomed) })
		restarted(t, 0)
		if err := wait(); err == nil {
			t.Error("it went on")
		}
		_, err := h.Repair(t.Context(), RepairOptions{VM: f.VM})
		must(t, err)
		c.writes(t, 0, "vda")
		unchanged(t)
	})
	t.Run("full pool", func(t *testing.T) {
		var wait func() error
		f.copies(t, c, func() { wait = inside(t.Context(), h) })
		quota(t, "vms", "1")
		err := wait()
		// It is aborted before the pool is full, or, for the guest would wait, after that.
		if e := (*Error)(nil); !errors.Is(err, disk.ErrNoSpace) || !errors.As(err, &e) || len(e.Left) > 0 && !strings.Contains(e.Next, "repair") {
			t.Errorf("error is %v", err)
		}
		c.writes(t, 0, "vda")
		roomAgain(t, h, "vms")
		_, err = h.Repair(t.Context(), RepairOptions{VM: f.VM})
		must(t, err)
		unchanged(t)
	})
	t.Run("QEMU", func(t *testing.T) {
		var wait func() error
		f.copies(t, c, func() { wait = inside(t.Context(), h) })
		for _, p := range domain.Processes(f.UUID) {
			must(t, syscall.Kill(p.PID, syscall.SIGKILL))
		}
		if err := wait(); err == nil {
			t.Error("it went on")
		}
		_, err := h.Repair(t.Context(), RepairOptions{VM: f.VM})
		must(t, err)
		holds(t, f.File, c.acked(t, "vda"))
	})
}

// records compares the state as [state.unchanged] does, but for the machine's record,
// which vmdisk begins to keep.
func (s state) records(t testing.TB) {
	t.Helper()
	keep := func(line string) bool { return strings.Contains(line, "vmdisk.machines") }
	was := slices.DeleteFunc(slices.Clone(s), keep)
	now := slices.DeleteFunc(stateNow(t), keep)
	if !slices.Equal(was, now) {
		t.Errorf("state changed:\n%v\n%v", was, now)
	}
}

// A machine that is off is copied with all that its chain holds, disk by disk, and back.
func TestAdoptOff(t *testing.T) {
	h := open(t, 0)
	id := uuid.NewString()
	top, second := chained(t, id, testLab.Guest, "100M"), blankFile(t)
	must(t, os.Truncate(second, 8<<20+100)) // no whole sectors
	f := localVM(t, id, "qcow2:"+top, "raw:"+second)
	before := map[string]string{top: sum(t, top), second: sum(t, second)}
	plan, err := h.PlanAdoption(t.Context(), f.VM, AdoptOptions{})
	must(t, err)
	if len(plan.Disks) != 2 || len(plan.Disks[0].Chain) != 3 || !strings.Contains(plan.After, "vms/"+id+"_disk.eph0") || strings.Contains(plan.Before, "rbd") {
		t.Errorf("plan is %+v", plan)
	}
	a, err := h.Adopt(t.Context(), f.VM, AdoptOptions{})
	must(t, err)
	for _, d := range a.Disks {
		if got, want := inside(t, h, d.Name()), before[d.File]; got != want {
			t.Errorf("%s: %s has other content than %s", d.Target, d.Name(), d.File)
		}
	}
	if _, err := h.Adopt(t.Context(), f.VM, AdoptOptions{}); !errors.Is(err, domain.ErrExists) {
		t.Errorf("again: %v", err)
	}
	if _, err := h.Unadopt(t.Context(), f.VM, EjectOptions{Disks: []string{"vdb"}}); err != nil {
		t.Fatal(err)
	}
	if now := f.has(t, "vdb"); now.Kept.Source != second || f.has(t, "vda").Kept.Pool == "" {
		t.Errorf("its disk is %+v", now)
	}
	if got := sum(t, second); got != before[second] {
		t.Error("the file has other content")
	}
}

// sum is the checksum of what a guest would see of a file.
func sum(t testing.TB, file string) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "sum")
	qemuImg(t, "convert", "-O", "raw", file, raw)
	out, err := exec.Command("sha256sum", raw).Output()
	must(t, err)
	text, _, _ := strings.Cut(string(out), " ")
	return text
}

func TestAdoptRefuses(t *testing.T) {
	h := open(t, 0)
	id := uuid.NewString()
	base, dir := instances(t, id)
	in := func(name string) string { return filepath.Join(dir, name) }
	bottom := filepath.Join(base, "b")
	qemuImg(t, "create", "-q", "-f", "raw", bottom, "8M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", bottom, "-F", "raw", in("disk"))
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", testLab.Guest, "-F", "raw", in("outside"))
	qemuImg(t, "create", "-q", "-f", "qcow2", in("snapshots"), "8M")
	qemuImg(t, "snapshot", "-c", "one", in("snapshots"))
	f := localVM(t, id, "qcow2:"+in("disk"))
	_, _, err := h.SetSecret(t.Context())
	must(t, err)
	conn := connected(t, 0)
	// with defines it with another disk.
	with := func(old, now string) {
		t.Helper()
		must(t, domain.Redefine(t.Context(), conn, f.VM, func(xml string) (string, bool, error) {
			return strings.Replace(xml, old, now, 1), true, nil
		}))
	}
	file := func(name string) string { return "<source file='" + in(name) + "'/>" }
	for _, tt := range []struct {
		name string
		with string // in place of its source
		o    AdoptOptions
		want error
		says string
	}{
		{"outside", file("outside"), AdoptOptions{}, disk.ErrBadSource, "--allow"},
		{"snapshots", file("snapshots"), AdoptOptions{}, disk.ErrBadSource, "internal snapshots"},
		{"missing", file("nothing"), AdoptOptions{}, fs.ErrNotExist, in("nothing")},
		{"no such target", file("disk"), AdoptOptions{Disks: []string{"vdx"}}, domain.ErrNotFound, "vdx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			with(file("disk"), tt.with)
			defer with(tt.with, file("disk"))
			was := stateNow(t)
			_, err := h.Adopt(t.Context(), f.VM, tt.o)
			if !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("error is %v", err)
			}
			was.unchanged(t)
		})
	}
	t.Run("block device", func(t *testing.T) {
		all := regexp.MustCompile(`(?s)<disk type='file'.*</disk>`)
		as := func(disk string) {
			must(t, domain.Redefine(t.Context(), conn, f.VM, func(xml string) (string, bool, error) {
				return all.ReplaceAllString(xml, disk), true, nil
			}))
		}
		as("<disk type='block' device='disk'><source dev='/dev/vda'/><target dev='vda' bus='virtio'/></disk>")
		all = regexp.MustCompile(`(?s)<disk type='block'.*</disk>`)
		defer as("<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>" + file("disk") + "<target dev='vda' bus='virtio'/></disk>")
		if _, err := h.Adopt(t.Context(), f.VM, AdoptOptions{}); !errors.Is(err, domain.ErrInvalid) || !strings.Contains(err.Error(), "block device") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("in use", func(t *testing.T) {
		s, err := disk.OpenLocal(in("disk"), disk.LocalOptions{Format: "qcow2"})
		must(t, err)
		defer s.Close()
		if err := disk.Unused(in("disk")); !errors.Is(err, disk.ErrInUse) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("no room", func(t *testing.T) {
		qemuImg(t, "convert", "-O", "raw", testLab.Guest, bottom)
		quota(t, "vms", "1")
		defer quota(t, "vms", "0")
		was := stateNow(t)
		if _, err := h.Adopt(t.Context(), f.VM, AdoptOptions{}); !errors.Is(err, disk.ErrNoSpace) {
			t.Errorf("error is %v", err)
		}
		was.unchanged(t)
	})
}
