// Adopt: a machine's disks from files of its host into Ceph, while it runs or not.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
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
	// Elapsed is how long it took, Stood how long the guest stood still for it.
	Elapsed time.Duration `json:"-"`
	Stood   time.Duration `json:"-"`

	cache string // of QEMU, until the machine starts again
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
	a := &adopting{h: h, o: o}
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
	a := &adopting{h: h, o: o}
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
	one    *AdoptedDisk // the one that is under way
	source *disk.Source // its file, if the machine is off
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

// look finds the machine's disks, and refuses what cannot be adopted.
func (a *adopting) look(ctx context.Context) (err error) {
	if a.vm, err = domain.Find(ctx, a.conn, a.vm.UUID); err != nil {
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
		return &domain.Error{Object: "VM " + a.VM, Kind: domain.ErrExists, Reason: "has no disk in a file of its host"}
	}
	for i := range a.Disks {
		if err := a.measure(ctx, &a.Disks[i]); err != nil {
			return err
		}
	}
	return a.name(ctx)
}

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
	for _, l := range d.Chain {
		d.Data += l.Used
	}
	d.Data = min(d.Data, d.Size)
	return nil
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

// unhindered refuses a machine of which libvirt has something that leads to its files,
// or works on them.
func (h *Host) unhindered(ctx context.Context, on session, vm domain.Info) error {
	kept, err := domain.Persistent(ctx, on.conn, vm.UUID)
	if err != nil {
		return err
	}
	if !kept {
		return &domain.Error{Object: "VM " + vm.Name, Kind: domain.ErrInvalid, Reason: "is transient: its host forgets it when it is off; virsh define it first"}
	}
	all, err := domain.Hindrances(ctx, on.conn, vm)
	if err != nil || len(all) == 0 {
		return err
	}
	return &domain.Error{Object: "VM " + vm.Name, Kind: domain.ErrInvalid, Err: &hindered{all[0].Cure}, Reason: all[0].What}
}

// hindered is what must be done first.
type hindered struct{ cure string }

func (h *hindered) Error() string { return h.cure }

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
