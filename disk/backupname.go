// The names of backups, which cinder-backup and vmdisk both read a chain from.

package disk

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// BackupPool is the pool for backups.
const BackupPool = "backups"

// maxBackupID is the width of the column in which Cinder keeps an ID.
const maxBackupID = 36

// Source of the forms: cinder, backup/drivers/ceph.py. An ID there has no other
// characters, or its snapshot would not be recognised.
var (
	backupIDForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	backupSnapForm = regexp.MustCompile(`^backup\.([a-z0-9-]+?)\.snap\.(.+)$`)
	backupBaseForm = regexp.MustCompile(`^(volume-.+)\.backup\.([a-z0-9-]+)$`)
)

// CheckBackupID refuses an ID that Cinder would not find again.
func CheckBackupID(id string) error {
	object := fmt.Sprintf("backup ID %.40q", id)
	switch {
	case len(id) > maxBackupID:
		return invalid(object, "has %d characters, at most %d are allowed", len(id), maxBackupID)
	case !backupIDForm.MatchString(id):
		return invalid(object, "has other characters than a-z, 0-9 and -, or begins with a dash")
	case id == "base":
		return invalid(object, "is what Cinder's oldest backups are called") // volume-ID.backup.base
	}
	return nil
}

// BackupBase is the name of the image that a chain of backups is kept in: the
// one that was made with its first.
func BackupBase(volume, id string) string { return volume + ".backup." + id }

// BackupSnapshot is the name of a backup's snapshot, on its volume and on the base.
func BackupSnapshot(id string, now time.Time) string {
	return fmt.Sprintf("backup.%s.snap.%d.%06d", id, now.Unix(), now.Nanosecond()/1000)
}

func backupMeta(id string) string { return "backup." + id + ".meta" }

// parseBase is the inverse of [BackupBase].
func parseBase(base string) (volume, id string, ok bool) {
	m := backupBaseForm.FindStringSubmatch(base)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// parseBackupSnapshot is the inverse of [BackupSnapshot].
func parseBackupSnapshot(name string) (id string, taken time.Time, ok bool) {
	m := backupSnapForm.FindStringSubmatch(name)
	if m == nil {
		return "", time.Time{}, false
	}
	whole, fraction, _ := strings.Cut(m[2], ".") // Python's time.time()
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return m[1], time.Time{}, true
	}
	micros, _ := strconv.ParseInt((fraction + "000000")[:6], 10, 64)
	return m[1], time.Unix(seconds, micros*1000).UTC(), true
}

// IsBackupSnapshot says whether a snapshot of a volume is a backup's. Cinder
// removes such snapshots with the volume.
func IsBackupSnapshot(name string) bool { return backupSnapForm.MatchString(name) }
