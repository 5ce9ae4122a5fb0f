// Eject: a machine's disks out of Ceph, into files of its host; and back into those
// that they were adopted from.

package vmdisk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// EjectOptions say what of a machine is ejected, and how.
type EjectOptions struct {
	Dir       string   // an absolute path of the host; the files are called as the images are
	Disks     []string // targets; none is all disks that are the machine's own
	Format    string   // "qcow2", or "raw"; "" is qcow2
	Bandwidth int64    // bytes a second that are copied while the machine runs; 0 is no limit
}

// Eject moves a machine's own disks (those that go with it, no volumes) out of Ceph
// into new files, one after the other, as [Host.Adopt] moves them in. An image is
// removed when the machine goes on with the file. A file that exists is
// [disk.ErrExists], an image with snapshots or clones [disk.ErrHasSnapshots] or
// [disk.ErrHasClones]; a machine without a disk in Ceph [domain.ErrExists].
//
// Similar to: virsh blockcopy --pivot; qemu-img convert.
func (h *Host) Eject(ctx context.Context, vm string, o EjectOptions) (Adoption, error) {
	e := &ejecting{h: h, op: "eject", o: o}
	return e.run(ctx, vm, func(context.Context) error { return e.choose() })
}

// Unadopt takes [Host.Adopt] back: the machine goes on with the files that it had, with
// what was written since; that replaces what they hold. A qcow2 does not need its
// backing file any more. Of o only Disks and Bandwidth count. A machine that was not
// adopted is [domain.ErrExists].
func (h *Host) Unadopt(ctx context.Context, vm string, o EjectOptions) (Adoption, error) {
	e := &ejecting{h: h, op: "adopt --undo", o: o, replace: true}
	return e.run(ctx, vm, e.adopted)
}

// ejecting is the state that the steps share.
type ejecting struct {
	session
	h       *Host
	op      string
	o       EjectOptions
	replace bool // the files are there, and what they hold is of no use
	vm      domain.Info
	Adoption
	one    *AdoptedDisk
	target *disk.Target // its file in the making, if the machine is off
}

func (e *ejecting) run(ctx context.Context, vm string, choose func(context.Context) error) (Adoption, error) {
	defer e.end()
	if err := e.prepare(ctx, vm, choose); err != nil {
		return Adoption{}, failed(e.op, vm, err)
	}
	for i := range e.Disks {
		e.one = &e.Disks[i]
		if err := e.eject(ctx); err != nil {
			return Adoption{}, err
		}
	}
	return e.Adoption, nil
}

func (e *ejecting) prepare(ctx context.Context, vm string, choose func(context.Context) error) (err error) {
	if e.o.Format == "" {
		e.o.Format = "qcow2"
	}
	if !e.replace && !filepath.IsAbs(e.o.Dir) {
		return badInput("folder %q is not an absolute path", e.o.Dir)
	}
	if e.vm, err = e.find(ctx, e.h, vm); err != nil {
		return err
	}
	e.Adoption = Adoption{VM: e.vm.Name, UUID: e.vm.UUID, Running: e.vm.Running, Disks: []AdoptedDisk{}, Drives: []string{}}
	if err := choose(ctx); err != nil {
		return err
	}
	if len(e.Disks) == 0 {
		return &domain.Error{Object: "VM " + e.VM, Kind: domain.ErrExists, Reason: "has no disk in Ceph " + map[bool]string{true: "that was adopted", false: "of its own"}[e.replace]}
	}
	for i := range e.Disks {
		d := &e.Disks[i]
		if d.Size, err = e.cluster.Size(ctx, d.Name()); err != nil {
			return err
		}
		d.Data = d.Size
		if err := e.fits(d); err != nil {
			return err
		}
	}
	return e.look(ctx)
}

// choose picks the machine's own disks.
func (e *ejecting) choose() error {
	for _, d := range e.vm.Disks {
		if d.Pool == "" || !oneOfDisks(e.o.Disks, d.Target) {
			continue
		}
		if !disk.Owned(e.UUID, d.Image) {
			if len(e.o.Disks) > 0 {
				return badInput("%s of %s is a volume, which stays in Ceph", d.Target, e.VM)
			}
			continue
		}
		e.Disks = append(e.Disks, AdoptedDisk{Target: d.Target, Pool: d.Pool, Image: d.Image, Format: e.o.Format,
			File: filepath.Join(e.o.Dir, d.Image+"."+e.o.Format)})
	}
	return nil
}

// adopted picks those that were in files.
func (e *ejecting) adopted(ctx context.Context) error {
	_, xml, err := domain.Definition(ctx, e.conn, e.UUID)
	if err != nil {
		return err
	}
	was, err := domain.Adopted(xml)
	if err != nil {
		return err
	}
	for _, d := range e.vm.Disks {
		i := slices.IndexFunc(was, func(l domain.LocalDisk) bool { return l.Target == d.Target })
		if i < 0 || d.Pool == "" || !oneOfDisks(e.o.Disks, d.Target) {
			continue
		}
		e.Disks = append(e.Disks, AdoptedDisk{Target: d.Target, Pool: d.Pool, Image: d.Image, Format: was[i].Format, File: was[i].File})
	}
	return nil
}

// fits refuses a file that is there, or is not, and a folder without room.
func (e *ejecting) fits(d *AdoptedDisk) error {
	_, err := os.Stat(d.File)
	switch {
	case err == nil && !e.replace:
		return &disk.Error{Op: "create", Object: d.File, Kind: disk.ErrExists}
	case err != nil && (e.replace || !errors.Is(err, fs.ErrNotExist)):
		return err
	}
	return nil
}

// look refuses what is in the way.
func (e *ejecting) look(ctx context.Context) (err error) {
	if e.vm, err = findOwn(ctx, e.cluster, e.conn, e.vm.UUID); err != nil {
		return err
	}
	e.Running = e.vm.Running
	if err := e.h.unhindered(ctx, e.session, e.vm); err != nil {
		return err
	}
	for _, d := range e.Disks {
		if err := e.cluster.Removable(ctx, d.Name()); err != nil {
			return err
		}
	}
	return nil
}

// eject moves one disk out of Ceph: that or nothing happens, but for the image, which
// goes at the end.
func (e *ejecting) eject(ctx context.Context) error {
	begin := time.Now()
	t := e.h.onMachine(&e.session, e.op, e.vm)
	t.check = e.again
	t.steps = func() []step {
		all, settle := e.offline(), e.on(actSettleEject)
		if e.Running {
			make1 := step{name: "create", detail: says(e.one.File), do: e.create}
			if !e.replace {
				make1.back = []action{e.on(actRemoveFile)}
			}
			c := e.crossing()
			all = append([]step{make1}, c.steps()...)
			settle = c.settle
		}
		// It may turn out that the disk has not left Ceph.
		return append(all, step{name: "remove", detail: e.one.Name().String, do: e.remove, on: []action{settle}})
	}
	err := e.h.perform(ctx, t)
	e.one.Elapsed = time.Since(begin)
	return err
}

func (e *ejecting) again(ctx context.Context) error {
	if err := e.look(ctx); err != nil {
		return err
	}
	now, err := domain.Relocation(ctx, e.conn, e.UUID, e.one.Target)
	if err == nil && now.Kept.Pool+"/"+now.Kept.Image != e.one.Name().String() {
		err = &domain.Error{Object: e.one.Target + " of " + e.VM, Kind: domain.ErrNotFound, Reason: "is not in " + e.one.Name().String() + " any more"}
	}
	return err
}

// offline is the disk's way while the machine is off. Killed in it, the definition says
// whether it happened: somebody may have started the machine since, with the image.
func (e *ejecting) offline() []step {
	name := step{name: "name", detail: says(e.one.File), do: func(context.Context) error { return e.target.Name() }}
	if !e.replace {
		name.back = []action{e.on(actRemoveFile)}
	}
	return []step{
		{name: "copy", detail: says(e.one.Name().String()), do: e.export, undo: func(context.Context) error { return e.target.Abandon() }},
		name,
		{name: "define", detail: says(e.one.Target + " in " + e.one.File), do: e.define, commit: true,
			on: []action{e.on(actSettleEject)}},
	}
}

// on is an action on the disk.
func (e *ejecting) on(v verb) action {
	return action{Verb: v, VM: e.UUID, Name: e.VM, Host: e.host, To: e.one.Target,
		Image: e.one.Name().String(), File: e.one.File, Format: e.one.Format, Keep: e.replace}
}

// create makes the file for a running machine: empty, and of the disk's size.
func (e *ejecting) create(context.Context) error {
	return disk.CreateLocal(e.one.File, e.one.Format, e.one.Size, e.replace)
}

func (e *ejecting) export(ctx context.Context) (err error) {
	if e.target, err = disk.CreateTarget(e.one.File, e.one.Format, e.replace); err != nil {
		return err
	}
	_, err = e.cluster.Export(ctx, e.one.Name(), e.target, disk.ExportOptions{Progress: e.h.progress(e.op, e.VM, "copy")})
	if err == nil {
		err = e.target.Like(e.one.File)
	}
	if err != nil {
		err = errors.Join(err, e.target.Abandon())
	}
	return err
}

func (e *ejecting) define(ctx context.Context) error {
	return e.h.act(ctx, &e.session, e.on(actPutInFile))
}

func (e *ejecting) remove(ctx context.Context) error {
	return e.cluster.RemoveDisk(ctx, e.one.Name())
}

// crossing is the disk's way while the machine runs.
func (e *ejecting) crossing() *crossing {
	return &crossing{
		session: &e.session, h: e.h, op: e.op, vm: e.vm, target: e.one.Target, from: e.one.Name().String(), to: e.one.File,
		bandwidth: e.o.Bandwidth, stood: &e.one.Stood,
		xml: func(context.Context) (string, error) {
			return domain.FileXML(e.one.Target, e.one.File, e.one.Format)
		},
		there: e.on(actPutInFile), back: e.on(actPutInCeph), settle: e.on(actSettleEject),
	}
}

// resume lets a machine go on; one that is off is as it was.
func resume(ctx context.Context, conn *libvirt.Connect, vm string) error {
	now, err := domain.Glance(ctx, conn, vm)
	if errors.Is(err, domain.ErrNotFound) || err == nil && !now.Paused {
		return nil
	}
	if err == nil {
		err = domain.Resume(ctx, conn, vm)
	}
	return err
}
