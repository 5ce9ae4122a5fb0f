// Every step of every workflow fails once, before and after its work, and what
// there was before is there again. The steps are found by running the workflow,
// not listed here.

package vmdisk

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// point is a moment at which a workflow can fail: before or after its nth step of
// that name.
type point struct {
	step string
	nth  int
	when phase
}

func (p point) String() string {
	s := map[phase]string{before: "before ", after: "after "}[p.when] + p.step
	if p.nth > 1 {
		s += fmt.Sprintf(" %d", p.nth)
	}
	return s
}

// counter makes points of what the step runner tells.
func counter() func(step string, when phase) point {
	seen := map[string]int{}
	return func(step string, when phase) point {
		if when == before {
			seen[step]++
		}
		return point{step, seen[step], when}
	}
}

// points runs a workflow and notes where it could have failed.
func points(t *testing.T, h *Host, work func() error) []point {
	t.Helper()
	var all []point
	at := counter()
	h.fault = func(_, step string, when phase) error {
		all = append(all, at(step, when))
		return nil
	}
	defer func() { h.fault = nil }()
	if err := work(); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("the workflow has no steps")
	}
	return all
}

// failAt makes a workflow fail at a point.
func failAt(h *Host, p point, work func() error) error {
	at := counter()
	h.fault = func(_, step string, when phase) error {
		if at(step, when) == p {
			return errTest
		}
		return nil
	}
	defer func() { h.fault = nil }()
	return work()
}

// rollsBack is a workflow that must leave nothing when it fails.
type rollsBack struct {
	name string
	// prepare makes what the workflow works on.
	prepare func(t *testing.T, h *Host) (work, reverse func() error)
	// commit is the step after which it has happened.
	commit string
}

func TestFailedStepLeavesNothing(t *testing.T) {
	for _, w := range []rollsBack{
		{name: "backup", prepare: prepareBackup, commit: "complete"},
		{name: "incremental", prepare: prepareIncremental, commit: "complete"},
		{name: "restore backup", prepare: prepareRestoreBackup, commit: "name"},
		{name: "restore backup to a volume", prepare: prepareRestoreTo, commit: "name"},
	} {
		t.Run(w.name, func(t *testing.T) {
			h := open(t, 0)
			work, reverse := w.prepare(t, h)
			// The first run makes what stays for good, as rbd_children.
			all := points(t, h, work)
			must(t, reverse())
			committed := false
			for _, p := range all {
				if p.step == w.commit && p.when == after {
					committed = true
				}
				t.Run(p.String(), func(t *testing.T) {
					testPoint(t, h, p, committed, work, reverse)
				})
			}
		})
	}
}

func testPoint(t *testing.T, h *Host, p point, committed bool, work, reverse func() error) {
	if p.step == "secret" {
		forgetUnusedSecrets(t)
	}
	was := stateNow(t)
	err := failAt(h, p, work)
	if !errors.Is(err, errTest) {
		t.Errorf("error is %v", err)
	}
	var e *Error
	if !errors.As(err, &e) || len(e.Left) > 0 && !committed {
		t.Errorf("left behind: %v", err)
	}
	if committed {
		must(t, reverse())
		was.same(t) // what was replaced is there under another ID
		return
	}
	was.unchanged(t)
}

// forgetUnusedSecrets makes the next secret step create one on hosts where no
// machine needs it.
func forgetUnusedSecrets(t *testing.T) {
	t.Helper()
	for i := range testLab.Hosts {
		vms, err := open(t, i).VMs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(vms) > 0 {
			return
		}
	}
	forgetSecrets(t)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prepareBackup(t *testing.T, h *Host) (work, reverse func() error) {
	v := backedUp(t, h)
	work = func() error {
		_, err := h.CreateBackup(t.Context(), v.ID, BackupOptions{ID: "fault"})
		return err
	}
	return work, func() error { _, err := h.RemoveBackup(t.Context(), "fault"); return err }
}

func prepareIncremental(t *testing.T, h *Host) (work, reverse func() error) {
	v := backedUp(t, h)
	_, err := h.CreateBackup(t.Context(), v.ID, BackupOptions{})
	must(t, err)
	mess(t, v.Name(), 2)
	work = func() error {
		_, err := h.CreateBackup(t.Context(), v.ID, BackupOptions{ID: "fault", Kind: disk.BackupIncremental})
		return err
	}
	return work, func() error { _, err := h.RemoveBackup(t.Context(), "fault"); return err }
}

func prepareRestoreBackup(t *testing.T, h *Host) (work, reverse func() error) {
	v := backedUp(t, h)
	b, err := h.CreateBackup(t.Context(), v.ID, BackupOptions{})
	must(t, err)
	work = func() error {
		_, err := h.RestoreBackup(t.Context(), b.ID, RestoreOptions{ID: "fault"})
		return err
	}
	return work, func() error { return h.RemoveVolume(t.Context(), "fault") }
}

// prepareRestoreTo replaces a volume; the reverse brings the old one back.
func prepareRestoreTo(t *testing.T, h *Host) (work, reverse func() error) {
	v, old := backedUp(t, h), volume(t, h)
	b, err := h.CreateBackup(t.Context(), v.ID, BackupOptions{})
	must(t, err)
	work = func() error {
		_, err := h.RestoreBackup(t.Context(), b.ID, RestoreOptions{To: old.ID})
		return err
	}
	return work, func() error {
		cluster, err := h.Cluster(t.Context())
		if err != nil {
			return err
		}
		if err := h.RemoveVolume(t.Context(), old.ID); err != nil {
			return err
		}
		return cluster.RestoreTrash(t.Context(), old.Name())
	}
}

// A removal does not roll back: after any failure, running it again finishes it.
func TestFailedRemovalIsFinishedByTheNext(t *testing.T) {
	for _, w := range []struct {
		name    string
		prepare func(t *testing.T, h *Host) (make, remove func() error)
	}{
		{"remove backup", prepareBackup},
		{"remove incremental", prepareIncremental},
	} {
		t.Run(w.name, func(t *testing.T) {
			h := open(t, 0)
			create, remove := w.prepare(t, h)
			must(t, create())
			all := points(t, h, remove)
			must(t, create())
			must(t, remove())
			was := stateNow(t)
			for _, p := range all {
				t.Run(fmt.Sprint(p), func(t *testing.T) {
					must(t, create())
					if err := failAt(h, p, remove); !errors.Is(err, errTest) {
						t.Errorf("error is %v", err)
					}
					// The last step may have been done: then there is nothing left.
					if err := remove(); err != nil && !errors.Is(err, disk.ErrNotFound) && !errors.Is(err, domain.ErrNotFound) {
						t.Error(err)
					}
					was.unchanged(t)
				})
			}
		})
	}
}
