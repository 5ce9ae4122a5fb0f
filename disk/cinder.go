// What Cinder calls things, and what it reads out of the names.

package disk

import (
	"fmt"
	"regexp"
	"strings"
)

const (
	snapshotPrefix = "snapshot-"

	// cloneSuffix ends the name of the snapshot that a volume made from another
	// volume hangs on, and deletedSuffix that of a volume which was deleted and is
	// kept for its clones. Source: cinder, create_cloned_volume and delete_volume.
	cloneSuffix   = ".clone_snap"
	deletedSuffix = ".deleted"
)

// backupSnapshot is what a backup leaves on its volume: the base of the next
// increment. Source: cinder, backup/drivers/ceph.py.
var backupSnapshot = regexp.MustCompile(`^backup\.([a-z0-9-]+?)\.snap\.(.+)$`)

// SnapshotName is the name in RBD of a volume's snapshot, "snapshot-ID", as Cinder
// names it. A name that has this form already is left alone.
func SnapshotName(id string) string {
	if strings.HasPrefix(id, snapshotPrefix) {
		return id
	}
	return snapshotPrefix + id
}

// SnapshotID is the inverse of [SnapshotName].
func SnapshotID(name string) string { return strings.TrimPrefix(name, snapshotPrefix) }

// CloneSnapshot is the snapshot of a source that a clone with this image name hangs
// on, "NEWIMAGE.clone_snap": by it Cinder knows that the clone was a volume from a
// volume, and removes it with the clone.
func CloneSnapshot(image string) string {
	return strings.TrimSuffix(image, deletedSuffix) + cloneSuffix
}

// The kinds of snapshots that a volume can have.
const (
	KindSnapshot = "snapshot" // snapshot-ID, a user's
	KindClone    = "clone"    // NEWIMAGE.clone_snap, a clone's
	KindBackup   = "backup"   // backup.ID.snap.TIME, a backup's
	KindOther    = "other"    // made with other tools
)

// SnapshotKind tells by the name what a volume's snapshot is for.
func SnapshotKind(name string) string {
	switch {
	case strings.HasPrefix(name, snapshotPrefix):
		return KindSnapshot
	case strings.HasSuffix(name, cloneSuffix):
		return KindClone
	case backupSnapshot.MatchString(name):
		return KindBackup
	}
	return KindOther
}

// ParseSnapshot reads what names a volume's snapshot: VOLUME@SNAP, the volume as
// [ParseVolume] reads it and the snapshot by its ID or its name in RBD. SNAP alone
// has no Image: [Cluster.FindSnapshot] finds its volume.
func ParseSnapshot(spec string) (Name, error) {
	volume, snap, ok := strings.Cut(spec, "@")
	if !ok {
		volume, snap = "", spec
	}
	if err := CheckName("snapshot", snap); err != nil {
		return Name{}, err
	}
	if !ok {
		return Name{Pool: VolumePool, Snap: snap}, nil
	}
	n, err := ParseVolume(volume)
	n.Snap = snap
	return n, err
}

// wholeGiB refuses a size that Cinder could not put into words.
func wholeGiB(op string, n Name, size int64) error {
	if size > 0 && size%GiB == 0 {
		return nil
	}
	return &Error{Op: op, Object: n.String(), Kind: ErrInvalid,
		Reason: fmt.Sprintf("a volume's size is a whole number of GiB, not %s", FormatSize(size))}
}

// RoundUp is the least whole number of GiB that holds size bytes.
func RoundUp(size int64) int64 { return (size + GiB - 1) / GiB * GiB }
