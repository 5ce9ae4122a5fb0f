// A process that was fenced stops, also in a call that will not return.

package vmdisk

import (
	"context"
	"errors"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// fencePoll is how often a long copy is asked whether the cluster still takes
// anything from it, and how long a call is waited for once it does not.
const fencePoll = 5 * time.Second

// unlessFenced runs a copy between the volumes and the backups. librbd 16.2 may never
// return from a write once its client was fenced (Ceph's trackers 59115, 61607 and
// 63009): then it is [disk.ErrFenced], the call keeps the connections, and the next
// workflow makes new ones.
func (h *Host) unlessFenced(volumes, store *disk.Cluster, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	fenced := false
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(fencePoll):
		}
		if fenced {
			h.abandon(volumes, store)
			return &disk.Error{Op: "continue", Object: "copy", Kind: disk.ErrFenced}
		}
		// Whoever cancels the work is still told of the fence.
		_, one := volumes.Operations(context.Background(), disk.VolumePool)
		_, other := store.HalfBackups(context.Background(), h.cfg.BackupPool)
		fenced = errors.Is(one, disk.ErrFenced) || errors.Is(other, disk.ErrFenced)
	}
}

// abandon leaves connections to a call that does not return.
func (h *Host) abandon(volumes, store *disk.Cluster) {
	h.cephMu.Lock()
	defer h.cephMu.Unlock()
	if h.store == store {
		h.store = nil
	}
	if h.cluster == volumes && !h.lent {
		h.cluster = nil
	}
}
