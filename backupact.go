// What takes the steps of a backup back, or finishes them: verbs on the pool of
// backups, which has a user of its own.

package vmdisk

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

const (
	actRewind         verb = "rewind"          // Image, a base, to its snapshot
	actCompleteBackup verb = "complete backup" // Backup
	actRetireBackup   verb = "retire backup"   // Backup: it does not count from now on
	actInherit        verb = "inherit"         // what is known of Backup, by those after it
	actTidyBase       verb = "tidy"            // Image, a base, after the removal of a snapshot
	actForgetBackup   verb = "forget backup"   // Backup
)

// actOnBackup does an action on a backup, in the pool of a base. It says whether the
// verb is one of these.
func (h *Host) actOnBackup(ctx context.Context, store *disk.Cluster, base disk.Name, a action) (known bool, err error) {
	switch a.Verb {
	case actRewind:
		return true, h.rewind(ctx, store, base)
	case actCompleteBackup:
		return true, store.CompleteBackup(ctx, base.Pool, a.Backup)
	case actRetireBackup:
		return true, store.RetireBackup(ctx, base.Pool, a.Backup)
	case actInherit:
		return true, store.Inherit(ctx, base.Pool, a.Backup)
	case actTidyBase:
		return true, store.TidyBase(ctx, base)
	case actForgetBackup:
		return true, store.ForgetBackup(ctx, base.Pool, a.Backup)
	}
	return false, nil
}

// rewind makes a base again what it was at a snapshot. A pool that is full may have
// no room for what was discarded since: that must not be in the way of the removals
// that make room, and whoever writes to the base next rewinds it first.
func (h *Host) rewind(ctx context.Context, store *disk.Cluster, at disk.Name) error {
	base := at
	base.Snap = ""
	_, err := store.Rewind(ctx, base, at.Snap)
	if errors.Is(err, disk.ErrNoSpace) {
		h.emit(Event{Kind: Warning, Op: "rewind", Object: at.String(), Err: err,
			Detail: "there is no room to rewind " + base.String() + ": remove backups or raise the quota, and let vmdisk make the next one of this chain, not Cinder"})
		return nil
	}
	return gone(err)
}
