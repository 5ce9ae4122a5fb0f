// The steps that adopt one disk.

package vmdisk

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// adopt moves one disk into Ceph: that or nothing happens.
func (a *adopting) adopt(ctx context.Context, d AdoptedDisk) error {
	begin := time.Now()
	t := a.h.onMachine(&a.session, "adopt", a.vm)
	t.check = func(ctx context.Context) error { return a.again(ctx, d) }
	t.steps = func() []step {
		make1 := []step{
			a.h.secretStep(&a.session, "", &a.secret),
			{name: "create", detail: says(a.made()), do: a.create,
				back: []action{{Verb: actRemove, Image: a.one.Name().String()}}},
		}
		if a.Running {
			if a.one.basis != nil && a.one.basis.Layer > 1 {
				make1 = append(make1, step{name: "fill", detail: says(a.one.Chain[1].Path), do: a.fillBelow})
			}
			return append(make1, a.crossing().steps()...)
		}
		return append(make1,
			step{name: "copy", detail: says(a.one.File), do: a.fill},
			step{name: "define", detail: says(a.what()), do: a.define, back: []action{a.on(actPutInFile)}})
	}
	defer a.closeSource()
	err := a.h.perform(ctx, t)
	if err == nil {
		a.one.Elapsed = time.Since(begin)
		a.tellCache()
	}
	return err
}

// again looks at the disk again, now that nobody else changes the machine.
func (a *adopting) again(ctx context.Context, d AdoptedDisk) error {
	b := &adopting{session: a.session, h: a.h, o: a.o, vm: a.vm, bases: a.bases}
	b.o.Disks = []string{d.Target}
	if err := b.look(ctx); err != nil {
		return err
	}
	b.Disks[0].Image = d.Image
	if err := a.cluster.Absent(ctx, d.Name()); err != nil {
		return err
	}
	a.vm, a.Running, a.one = b.vm, b.Running, &b.Disks[0]
	if a.Running {
		return nil
	}
	var err error
	a.source, err = disk.OpenLocal(d.File, a.local(d.Format))
	return err
}

func (a *adopting) closeSource() {
	if a.source != nil {
		a.source.Close()
		a.source = nil
	}
}

// on is an action on the disk.
func (a *adopting) on(v verb) action {
	return action{Verb: v, VM: a.UUID, Name: a.VM, Host: a.host, To: a.one.Target,
		Image: a.one.Name().String(), File: a.one.File, Format: a.one.Format}
}

// what is the disk and where it goes, for people.
func (a *adopting) what() string { return a.one.Target + " in " + a.one.Name().String() }

// made is the image and what it is made as.
func (a *adopting) made() string {
	what := a.one.Name().String() + ", " + disk.FormatSize(a.one.Size)
	if a.one.Parent != "" {
		what += ", a clone of " + a.one.Parent
	}
	return what
}

func (a *adopting) create(ctx context.Context) error {
	if b := a.one.basis; b != nil {
		// What it holds is the disk's content, whatever that looks like.
		return a.cluster.CloneAsIs(ctx, b.Image, a.one.Size, a.one.Name())
	}
	return a.cluster.CreateDisk(ctx, a.one.Name(), a.one.Size)
}

func (a *adopting) fill(ctx context.Context) error {
	if a.one.basis != nil {
		return a.fillAbove(ctx, a.source)
	}
	return a.cluster.FillDisk(ctx, a.one.Name(), a.source, a.h.progress("adopt", a.VM, "copy"))
}

// fillAbove copies what a source has above the file that the image is like.
func (a *adopting) fillAbove(ctx context.Context, src *disk.Source) error {
	_, err := a.cluster.FillClone(ctx, a.one.Name(), src, a.one.basis, a.h.progress("adopt", a.VM, "copy"))
	return err
}

// fillBelow copies what there is between the file that the machine writes, which QEMU
// copies, and that of which the image is a clone: nobody writes there.
func (a *adopting) fillBelow(ctx context.Context) error {
	src, err := disk.OpenBacking(a.one.File, a.local(a.one.Format))
	if err != nil {
		return err
	}
	defer src.Close()
	return a.fillAbove(ctx, src)
}

func (a *adopting) define(ctx context.Context) error {
	return a.h.act(ctx, &a.session, a.on(actPutInCeph))
}

// crossing is the disk's way while the machine runs.
func (a *adopting) crossing() *crossing {
	return &crossing{
		session: &a.session, h: a.h, op: "adopt", vm: a.vm, target: a.one.Target, from: a.one.File, to: a.one.Name().String(),
		bandwidth: a.o.Bandwidth, into: a.cluster, pool: a.one.Pool, data: a.one.Data, stood: &a.one.Stood, shallow: a.one.basis != nil,
		xml: func(ctx context.Context) (string, error) {
			with, err := a.h.rbdDisk(ctx, a.cluster, a.one.Name(), a.secret.UUID)
			if err != nil {
				return "", err
			}
			with.Target = a.one.Target
			return with.XML()
		},
		there: a.on(actPutInCeph), back: a.on(actPutInFile), settle: a.on(actSettleAdopt),
	}
}

// tellCache tells of a cache that QEMU cannot change while it runs.
func (a *adopting) tellCache() {
	if a.Running && a.one.cache != "" && a.one.cache != "writeback" {
		a.h.emit(Event{Kind: Note, Op: "adopt", Object: a.VM, Step: "note",
			Detail: "cache " + a.one.cache + " of " + a.one.Target + " stays until the next start, then it is writeback"})
	}
}

// putInCeph defines a machine with the disk a.To in the image n, by a change of its
// definition; one that has it there is fine.
func (h *Host) putInCeph(ctx context.Context, on *session, conn *libvirt.Connect, n disk.Name, a action,
	change func(string, domain.Disk) (string, error)) error {
	s, _, err := h.ensureSecret(ctx, on.cluster, conn)
	if err != nil {
		return err
	}
	with, err := h.rbdDisk(ctx, on.cluster, n, s.UUID)
	if err != nil {
		return err
	}
	with.Target = a.To
	err = h.redefine(ctx, session{cluster: on.cluster, conn: conn}, domain.Info{UUID: a.VM}, &s, func(xml string) (string, error) {
		return change(xml, with)
	})
	if errors.Is(err, domain.ErrExists) {
		return nil
	}
	return err
}

// putInFile defines a machine with the disk a.To in a file; one that has it there is
// fine.
func putInFile(ctx context.Context, conn *libvirt.Connect, a action) error {
	err := domain.Redefine(ctx, conn, a.VM, func(xml string) (string, bool, error) {
		xml, err := domain.Unadopt(xml, a.To, a.File, a.Format)
		return xml, true, err
	})
	if errors.Is(err, domain.ErrExists) || errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	return err
}

// oneOfDisks says whether a target was asked for.
func oneOfDisks(asked []string, target string) bool {
	return len(asked) == 0 || slices.Contains(asked, target)
}
