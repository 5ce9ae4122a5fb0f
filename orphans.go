// Orphans: what lies in the pools and belongs to nothing any more.

package vmdisk

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// The kinds of orphans.
const (
	OrphanDisk     = "disk"     // a machine's, and no such machine is known
	OrphanImport   = "import"   // an image that never got its name
	OrphanSnapshot = "snapshot" // one that was for something that is over
	OrphanRestore  = "restore"  // a volume that never got its name
	OrphanBackup   = "backup"   // one whose making or removal never ended
)

// Orphan is an image or a snapshot that nothing needs, as far as is known.
type Orphan struct {
	Kind    string    `json:"kind"`
	Name    string    `json:"name"` // POOL/IMAGE[@SNAP], or a backup's ID
	Size    int64     `json:"size"` // bytes, of the image
	Created time.Time `json:"created"`
	Reason  string    `json:"reason"`
	Outcome

	name disk.Name
}

// What others leave in the pools. Source: nova, virt/libvirt/driver.py
// (RESIZE_SNAP_NAME); cinder, volume/drivers/rbd.py (clone_snap).
const (
	resizeSnapshot  = "nova-resize"
	cloneSnapshot   = ".clone_snap"
	captureSnapshot = "vmdisk-image." // ours, while an image is made of a machine
	importSuffix    = ".importing"
)

// orphans looks through the pools, and removes what it found if that is asked for.
func (r *repair) orphans(ctx context.Context) error {
	age := r.o.OlderThan
	if age == 0 {
		age = orphanAge
	}
	before := time.Now().Add(-age)
	for _, pool := range r.h.pools() {
		all, err := r.cluster.Survey(ctx, pool)
		if errors.Is(err, disk.ErrNotFound) {
			continue // there is no such pool
		}
		if err != nil {
			return err
		}
		for _, s := range all {
			found, err := r.orphansOf(ctx, s, before)
			if err != nil {
				return err
			}
			for _, o := range found {
				if o.Created.Before(before) {
					r.Orphans = append(r.Orphans, o)
				}
			}
		}
	}
	if r.o.VM == "" {
		r.halfBackups(ctx, before)
	}
	if !r.o.RemoveOrphans || r.o.DryRun {
		return nil
	}
	for i := range r.Orphans {
		o := &r.Orphans[i]
		o.note(r.removeOrphan(ctx, o))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// orphansOf are the orphans of one image from before a time: its snapshots, then itself.
func (r *repair) orphansOf(ctx context.Context, s disk.Surveyed, before time.Time) ([]Orphan, error) {
	id := machineOf(s.Name)
	owned := id == "" || r.knows(id)
	if r.o.VM != "" && (id == "" || id != r.vm.UUID && id != r.o.VM) || r.isLeased(s.Name, id) {
		return nil, nil
	}
	var all []Orphan
	for _, snap := range s.Snaps {
		reason, err := r.uselessSnapshot(ctx, s.Name, snap.Name, owned)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			n := s.Name
			n.Snap = snap.Name
			all = append(all, Orphan{Kind: OrphanSnapshot, Name: n.String(), Size: s.Size, Created: snap.At, Reason: reason, name: n})
		}
	}
	o := Orphan{Name: s.Name.String(), Size: s.Size, Created: s.Created, name: s.Name}
	switch {
	case !owned:
		o.Kind, o.Reason = OrphanDisk, "no machine "+id+" is known"
	case s.Name.Pool == disk.ImagePool && strings.HasSuffix(s.Name.Image, importSuffix):
		o.Kind, o.Reason = OrphanImport, "its import never ended"
	case s.Name.Pool == disk.VolumePool && disk.Restored(s.Name) != s.Name:
		o.Kind, o.Reason = OrphanRestore, "its restore never ended"
	default:
		return all, nil
	}
	if !o.Created.Before(before) { // nobody need be asked
		return all, nil
	}
	by, err := r.cluster.Watchers(ctx, s.Name)
	if err != nil || len(by) > 0 {
		return nil, gone(err) // somebody uses it
	}
	return append(all, o), nil
}

// uselessSnapshot says why a snapshot is not needed any more, "" if it is.
func (r *repair) uselessSnapshot(ctx context.Context, n disk.Name, snap string, owned bool) (string, error) {
	switch {
	case snap == resizeSnapshot && !owned:
		return "its machine is not known", nil
	case strings.HasPrefix(snap, captureSnapshot) && n.Pool == r.h.cfg.VMPool:
		return "no image is being made of it", nil
	case !strings.HasSuffix(snap, cloneSnapshot):
		return "", nil
	}
	all, err := r.cluster.Snapshots(ctx, n)
	if err != nil {
		return "", gone(err)
	}
	for _, s := range all {
		if s.Name == snap && len(s.Clones) == 0 {
			return "its clone is gone", nil
		}
	}
	return "", nil
}

// machineOf is the UUID of the machine that an image is named after, or "".
func machineOf(n disk.Name) string {
	id, _, ok := strings.Cut(n.Image, "_disk")
	if !ok || uuid.Validate(id) != nil {
		return ""
	}
	return id
}

// knows says whether a machine has a record, or is defined on this host.
func (r *repair) knows(id string) bool {
	if _, ok := r.records[id]; ok {
		return true
	}
	for _, info := range r.here {
		if info.UUID == id {
			return true
		}
	}
	return false
}

// leaseOf is the lease of an image, which may not have got its name yet.
func leaseOf(n disk.Name) string {
	return n.Pool + "/" + strings.TrimSuffix(disk.Restored(n).Image, importSuffix)
}

// halfBackups adds the backups that are not whole and that nobody works on. A journal
// has what an interrupted process left of them, so that there are none, unless that
// was lost. Who has no pool of backups, or may not look into it, has no such orphans.
func (r *repair) halfBackups(ctx context.Context, before time.Time) {
	store, err := r.h.backups(ctx)
	if err != nil {
		return
	}
	all, err := store.HalfBackups(ctx, r.h.cfg.BackupPool)
	if err != nil {
		return
	}
	for _, b := range all {
		_, busy := r.leased[onChain(nil, "", "", b.Volume).leases[0]]
		if !busy && b.Created.Before(before) {
			r.Orphans = append(r.Orphans, Orphan{Kind: OrphanBackup, Name: b.ID, Size: b.Size, Created: b.Created, Reason: "its making or its removal never ended"})
		}
	}
}

// isLeased says whether an operation works on an image.
func (r *repair) isLeased(n disk.Name, machine string) bool {
	_, image := r.leased[leaseOf(n)]
	_, vm := r.leased[n.Pool+"/"+machine]
	return image || vm && machine != ""
}

// removeOrphan removes one, leased like anything else that is removed.
func (r *repair) removeOrphan(ctx context.Context, o *Orphan) error {
	if o.Kind == OrphanBackup {
		_, err := r.h.RemoveBackup(ctx, o.Name)
		return err
	}
	n := o.name
	remove := action{Verb: actRemove, Image: n.String()}
	do := func(ctx context.Context) error { return r.h.act(ctx, &r.session, remove) }
	switch o.Kind {
	case OrphanSnapshot:
		remove.Verb = actRemoveSnap
	case OrphanImport: // with its own snapshot
		do = func(ctx context.Context) error { return gone(r.cluster.RemoveImage(ctx, n)) }
	}
	lease := leaseOf(n)
	if id := machineOf(n); id != "" {
		lease = n.Pool + "/" + id
	}
	return r.h.perform(ctx, task{
		op: "remove", object: n.String(), on: &r.session, pool: n.Pool, leases: []string{lease}, forward: true,
		check: func(ctx context.Context) error { return r.stillOrphan(ctx, o) },
		steps: steps(step{name: "remove", detail: n.String, do: do, on: []action{remove}}),
	})
}

// stillOrphan looks again, under the lease: a machine may have got its record.
func (r *repair) stillOrphan(ctx context.Context, o *Orphan) error {
	if o.Kind != OrphanDisk {
		return nil
	}
	m, err := r.cluster.Machine(ctx, r.h.cfg.VMPool, machineOf(o.name))
	if err == nil {
		return &disk.Error{Op: "remove", Object: o.Name, Kind: disk.ErrInUse, Holders: []string{whereabouts(m)}}
	}
	return gone(err)
}
