// What of a machine is to be adopted, and what speaks against it.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// look finds the machine's disks, and refuses what cannot be adopted.
func (a *adopting) look(ctx context.Context) (err error) {
	if a.vm, err = findOwn(ctx, a.cluster, a.conn, a.vm.UUID); err != nil {
		return err
	}
	a.Adoption = Adoption{VM: a.vm.Name, UUID: a.vm.UUID, Running: a.vm.Running, Disks: []AdoptedDisk{}, Drives: []string{}}
	if err := a.h.unhindered(ctx, a.session, a.vm); err != nil {
		return err
	}
	live, kept, err := domain.MigratableXML(ctx, a.conn, a.vm.UUID)
	if err != nil {
		return err
	}
	local, refused, err := domain.LocalDisks(kept)
	if err != nil {
		return err
	}
	now, refusedNow, err := domain.LocalDisks(live)
	if err != nil {
		return err
	}
	if err := a.choose(local, now, []map[string]error{refused, refusedNow}); err != nil {
		return err
	}
	if len(a.Disks) == 0 {
		return &domain.Error{Object: "VM " + a.VM, Kind: domain.ErrExists, Err: errInCeph, Reason: errInCeph.Error()}
	}
	for i := range a.Disks {
		if err := a.measure(ctx, &a.Disks[i]); err != nil {
			return err
		}
	}
	return a.name(ctx)
}

// errInCeph is a machine that there is nothing to adopt of.
var errInCeph = errors.New("has no disk in a file of its host")

// choose picks the disks that are to be adopted.
func (a *adopting) choose(kept, now []domain.LocalDisk, refused []map[string]error) error {
	asked := slices.Clone(a.o.Disks)
	for _, all := range refused {
		for target, err := range all {
			if len(asked) == 0 || slices.Contains(asked, target) {
				return err
			}
		}
	}
	for _, d := range kept {
		switch {
		case len(a.o.Disks) > 0 && !slices.Contains(a.o.Disks, d.Target):
			continue
		case d.Drive && len(a.o.Disks) == 0:
			a.Drives = append(a.Drives, d.Target)
			continue
		case d.Drive:
			return &domain.Error{Object: d.Target + " of " + a.VM, Kind: domain.ErrInvalid, Reason: "is a drive, not a disk; its medium stays a file"}
		case a.Running && !slices.ContainsFunc(now, func(l domain.LocalDisk) bool {
			return l.Target == d.Target && l.File == d.File && l.Format == d.Format
		}):
			return &domain.Error{Object: d.Target + " of " + a.VM, Kind: domain.ErrInvalid,
				Reason: "is not the same in the running machine and in its definition; stop it, or correct that"}
		}
		a.Disks = append(a.Disks, AdoptedDisk{Target: d.Target, File: d.File, Format: d.Format, cache: d.Cache})
		asked = slices.DeleteFunc(asked, func(t string) bool { return t == d.Target })
	}
	if len(asked) > 0 {
		return &domain.Error{Object: asked[0] + " of " + a.VM, Kind: domain.ErrNotFound, Reason: "there is no such disk in a file"}
	}
	return nil
}

// measure reads the headers of a disk's files.
func (a *adopting) measure(ctx context.Context, d *AdoptedDisk) (err error) {
	if d.Chain, err = disk.Layers(d.File, a.local(d.Format)); err != nil {
		return err
	}
	d.Size = disk.WholeSectors(d.Chain[0].Size)
	if a.Running {
		if d.Size, err = domain.BlockSize(ctx, a.conn, a.UUID, d.Target); err != nil {
			return err
		}
	}
	if err := a.found(ctx, d); err != nil {
		return err
	}
	for _, l := range d.own() {
		d.Data += l.Used
	}
	d.Data = min(d.Data, d.Size)
	return nil
}

// found looks for an image that the disk can be a clone of. That a running machine's
// files cannot be judged, or are others than QEMU has, is not in the way of copying what
// QEMU makes of them.
func (a *adopting) found(ctx context.Context, d *AdoptedDisk) (err error) {
	if len(d.Chain) == 1 {
		return nil
	}
	if a.Running {
		if files, err := domain.BackingFiles(ctx, a.conn, a.UUID, d.Target); err != nil || !d.above(files) {
			return err
		}
	}
	was, known := a.bases[d.Target]
	switch {
	case !known:
		d.basis, err = a.compare(ctx, d)
	case was != nil: // it is looked whether that is so still
		d.basis, err = a.cluster.FindBasis(ctx, disk.ImagePool, d.File, a.local(d.Format), d.Size, was, nil)
	}
	if err != nil {
		return err
	}
	a.bases[d.Target] = d.basis
	if d.basis != nil {
		d.Parent = d.basis.Image.String()
	}
	return nil
}

// compare compares the files below a disk with the images, and tells what comes of it.
func (a *adopting) compare(ctx context.Context, d *AdoptedDisk) (*disk.Basis, error) {
	begin := time.Now()
	event := Event{Kind: Started, Op: "adopt", Object: a.VM, Step: "compare", Detail: d.Chain[1].Path}
	a.h.emit(event)
	basis, err := a.cluster.FindBasis(ctx, disk.ImagePool, d.File, a.local(d.Format), d.Size, nil, a.h.progress("adopt", a.VM, "compare"))
	if a.Running && (errors.Is(err, disk.ErrBadSource) || errors.Is(err, disk.ErrInUse)) {
		err = nil
	}
	event.Kind, event.Elapsed, event.Detail = Done, time.Since(begin), d.Target+" is above no image in Ceph"
	switch {
	case err != nil:
		event.Kind, event.Err = Failed, err
	case basis != nil:
		event.Detail = d.Target + " is above " + basis.Image.String()
	}
	a.h.emit(event)
	return basis, err
}

// novaForm is a file of a machine as Nova names it, in the machine's own folder.
var novaForm = regexp.MustCompile(`^disk(\.(swap|local|config|eph[0-9]+))?$`)

// name gives the images names: those that Nova would, where the files are Nova's, else
// UUID_disk for the machine's first disk and that of a further disk for others.
func (a *adopting) name(ctx context.Context) error {
	pool := a.h.cfg.VMPool
	has, err := a.cluster.MachineImages(ctx, pool, a.UUID)
	if err != nil {
		return err
	}
	var taken []string
	for _, n := range has {
		taken = append(taken, n.Image)
	}
	for i := range a.Disks {
		d := &a.Disks[i]
		base := filepath.Base(d.File)
		switch {
		case novaForm.MatchString(base) && filepath.Base(filepath.Dir(d.File)) == a.UUID:
			d.Image = a.UUID + "_" + base
		case len(a.vm.Disks) > 0 && a.vm.Disks[0].Target == d.Target:
			d.Image = disk.RootDiskName(a.UUID)
		default:
			for k := 0; d.Image == "" || slices.Contains(taken, d.Image); k++ {
				d.Image = disk.EphemeralDiskName(a.UUID, k)
			}
		}
		d.Pool = pool
		if slices.Contains(taken, d.Image) {
			return &disk.Error{Op: "create", Object: d.Name().String(), Kind: disk.ErrExists}
		}
		taken = append(taken, d.Image)
	}
	return nil
}

// room refuses what would not fit into the pool.
func (a *adopting) room(ctx context.Context) error {
	pool := a.h.cfg.VMPool
	has, err := a.cluster.Capacity(ctx, pool)
	if err != nil {
		return err
	}
	need := int64(0)
	for _, d := range a.Disks {
		need += d.Data
	}
	if left := has.Pools[0].Available; need > left {
		return &disk.Error{Object: "pool " + pool, Kind: disk.ErrNoSpace,
			Reason: fmt.Sprintf("has room for %s, the disks of %s have up to %s of data", disk.FormatSize(left), a.VM, disk.FormatSize(need))}
	}
	return nil
}

// foresee makes the definition that the machine is to have.
func (a *adopting) foresee(ctx context.Context) (err error) {
	if _, a.Before, err = domain.Definition(ctx, a.conn, a.UUID); err != nil {
		return err
	}
	a.After = a.Before
	for _, d := range a.Disks {
		with, err := a.h.rbdDisk(ctx, a.cluster, d.Name(), a.h.secretUUID(a.cluster))
		if err != nil {
			return err
		}
		with.Target = d.Target
		if a.After, err = domain.Adopt(a.After, with); err != nil {
			return err
		}
	}
	if a.Before, err = domain.Plain(a.Before); err == nil {
		a.After, err = domain.Plain(a.After)
	}
	return err
}
