// Adopt: a machine's disks from files of its host into Ceph, while it runs or not.

package vmdisk

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// AdoptOptions say what of a machine is adopted, and how.
type AdoptOptions struct {
	Disks []string // targets; none is all disks that are in files
	// Allow are folders in which backing files may be, besides the disk's own and the
	// _base beside it.
	Allow     []string
	Bandwidth int64 // bytes a second that are copied; 0 is no limit
}

// Adoption is a machine whose disks are, or are to be, in Ceph.
type Adoption struct {
	VM      string        `json:"vm"`
	UUID    string        `json:"uuid"`
	Running bool          `json:"running"`
	Disks   []AdoptedDisk `json:"disks"`
	Drives  []string      `json:"drives"` // targets of drives with media in files, which stay
	// Before and After are the definition of a plan, as it is and as it is to be, written
	// alike.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// AdoptedDisk is one disk, where it was and where it is.
type AdoptedDisk struct {
	Target string       `json:"target"`
	File   string       `json:"file"`
	Format string       `json:"format"`
	Chain  []disk.Layer `json:"chain"` // the file and those below it
	Pool   string       `json:"pool"`
	Image  string       `json:"image"`
	Size   int64        `json:"size"` // bytes, as the guest sees it
	Data   int64        `json:"data"` // bytes that are to be copied, at most
	// Parent is the image's snapshot that the disk is a clone of, as it holds what one of
	// the backing files does; "" if there is none.
	Parent string `json:"parent,omitempty"`
	// Elapsed is how long it took, Stood how long the guest stood still for it.
	Elapsed time.Duration `json:"-"`
	Stood   time.Duration `json:"-"`

	cache string // of QEMU, until the machine starts again
	basis *disk.Basis
}

// above says whether files are those below the disk's.
func (d AdoptedDisk) above(files []string) bool {
	return slices.EqualFunc(d.Chain[1:], files, func(l disk.Layer, file string) bool {
		real, err := filepath.EvalSymlinks(file)
		return err == nil && real == l.Path
	})
}

// own are those of the chain's files that are to be copied.
func (d AdoptedDisk) own() []disk.Layer {
	if d.basis == nil {
		return d.Chain
	}
	return d.Chain[:d.basis.Layer]
}

// Name is the disk's image.
func (d AdoptedDisk) Name() disk.Name { return disk.Name{Pool: d.Pool, Image: d.Image} }

// Adopt copies a machine's disks that are files of this host (raw, or qcow2 with its
// backing files, as Nova lays them out) into Ceph, one after the other, and has the
// machine go on with the copies. One that runs goes on running: each disk is copied
// while the guest writes it, and the guest stands still for a moment at its end, in
// which the definition and QEMU change over. What a guest sees of its disk stays as it
// was. The files stay as they were at that moment; [Host.Unadopt] goes back to them,
// [Host.RemoveAdopted] removes them.
//
// Where an image in the pool images holds, byte for byte, what one of a disk's backing
// files does, the disk becomes a clone of it and only what is above that file is copied.
//
// Images are named as Nova names them, UUID_disk and so on: they belong to the machine
// as the files do, and are removed with it.
//
// What cannot be adopted is refused before anything is changed: a file that is damaged,
// has a backing file that is missing or in another folder than it may be, internal
// snapshots or encryption, is [disk.ErrBadSource]; a disk that is no file, or that others
// may write, [domain.ErrInvalid]; one that another process has open [disk.ErrInUse]; a
// pool without room [disk.ErrNoSpace]. A machine whose disks are all in Ceph is
// [domain.ErrExists].
//
// If ctx ends while a disk is copied, that one is where it was; those before it stay
// adopted, and the same call goes on with the rest. So it is on any failure, unless the
// error has something Left, which a repair finishes or takes back.
//
// Similar to: virsh blockcopy --pivot, and virsh define; qemu-img convert.
func (h *Host) Adopt(ctx context.Context, vm string, o AdoptOptions) (Adoption, error) {
	const op = "adopt"
	a := &adopting{h: h, o: o, bases: map[string]*disk.Basis{}}
	defer a.end()
	if err := a.prepare(ctx, vm); err != nil {
		return Adoption{}, failed(op, vm, err)
	}
	h.warnCachePolicy(op, a.VM, a.cluster)
	for i, d := range a.Disks {
		if err := a.adopt(ctx, d); err != nil {
			return Adoption{}, a.state(err, a.Disks[:i])
		}
		a.Disks[i] = *a.one
	}
	return a.Adoption, nil
}

// PlanAdoption says what [Host.Adopt] would do, and refuses what that refuses. It
// changes nothing.
func (h *Host) PlanAdoption(ctx context.Context, vm string, o AdoptOptions) (Adoption, error) {
	const op = "adopt"
	a := &adopting{h: h, o: o, bases: map[string]*disk.Basis{}}
	defer a.end()
	if err := a.prepare(ctx, vm); err != nil {
		return Adoption{}, failed(op, vm, err)
	}
	return a.Adoption, failed(op, vm, a.foresee(ctx))
}

// adopting is the state that the steps share.
type adopting struct {
	session
	h      *Host
	o      AdoptOptions
	vm     domain.Info
	secret secret.Secret
	Adoption
	one    *AdoptedDisk           // the one that is under way
	source *disk.Source           // its file, if the machine is off
	bases  map[string]*disk.Basis // by target, those found
}

// prepare opens the connections, finds the machine and judges all of its disks.
func (a *adopting) prepare(ctx context.Context, vm string) (err error) {
	if a.vm, err = a.find(ctx, a.h, vm); err != nil {
		return err
	}
	if err := a.look(ctx); err != nil {
		return err
	}
	if !a.Running {
		for _, d := range a.Disks {
			src, err := disk.OpenLocal(d.File, a.local(d.Format))
			if err != nil {
				return err
			}
			src.Close()
		}
	}
	return a.room(ctx)
}

func (a *adopting) local(format string) disk.LocalOptions {
	return disk.LocalOptions{Format: format, Allow: a.o.Allow, Rate: a.o.Bandwidth}
}

// state says of an error which disks have changed place before it.
func (a *adopting) state(err error, done []AdoptedDisk) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	if errors.Is(err, disk.ErrNoSpace) && len(e.Left) > 0 {
		e.Next = "its guest goes on with the file; when there is room:  vmdisk repair " + a.VM
	}
	if len(done) == 0 {
		return err
	}
	var targets []string
	for _, d := range done {
		targets = append(targets, d.Target)
	}
	e.State = strings.Join(targets, ", ") + " of " + a.VM + " is in Ceph; the same command goes on with the rest"
	return err
}
